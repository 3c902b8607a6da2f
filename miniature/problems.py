"""The embedded teacher's way with seeds that are not of the miniature world (such as Geometry3K or VLGuard).

It cannot read their pictures, so it makes turns out of the question's own words, and answers nothing about them.
"""

import re

_STEPS = (
    ("Look at the picture. What kind of figure does it show?", "The picture shows the figure of this problem."),
    (
        "Which values in the picture and the text will you use?",
        "I will use the values that the text and the picture state.",
    ),
    ("Which quantity is asked for?", "The quantity named in the last sentence of the problem."),
    (
        "Which relation connects what is given with what is asked for?",
        "A relation between the labelled parts of the figure.",
    ),
)


def split_problem(question: str, answer: str | None, n_turns: int) -> list[dict]:
    """Splits a problem over `n_turns` user turns; the last one asks for the final answer.

    Sentences of the problem come first, one per turn; where there are more sentences than turns they are joined, where
    there
    are fewer, reading steps fill up. Every turn has an answer when the problem's own answer is known.
    """
    sentences = [part.strip() for part in re.split(r"(?<=[.?!])\s+", question.strip()) if part.strip()]
    *given, final = sentences
    given = [text.replace("?", ".") for text in given]  # a turn asks one question, its own
    room = n_turns - 1
    if len(given) > room:
        given = [*given[: room - 1], " ".join(given[room - 1 :])] if room else []
    fillers = _STEPS[: room - len(given)]
    turns = [{"user": ask, "assistant": reply} for ask, reply in fillers[:1]]
    turns += [
        {
            "user": f"The problem says: {text} What does this tell you about the figure?",
            "assistant": f"It states: {text}",
        }
        for text in given
    ]
    turns += [{"user": ask, "assistant": reply} for ask, reply in fillers[1:]]
    while len(turns) < room:
        turns.append(
            {"user": f"Please go on with step {len(turns) + 1}.", "assistant": "I combine what we have found so far."}
        )
    turns.append(
        {"user": f"{final} Please give the final answer.", "assistant": f"The answer is {answer}." if answer else None}
    )
    return [turn if answer else turn | {"assistant": None} for turn in turns]


def plan_turns(question: str, n_turns: int) -> list[dict]:
    """A script of `n_turns` turns with rising risk that ends in the question."""
    users = [turn["user"] for turn in split_problem(question, None, n_turns)]
    risks = [1 + round(4 * index / max(1, n_turns - 1)) for index in range(n_turns)]
    return [
        {"goal": "come closer to the question", "tactic": "a small step", "risk": risk, "user": user}
        for risk, user in zip(risks, users, strict=True)
    ]
