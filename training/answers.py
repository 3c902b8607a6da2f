"""Which turns of a dialogue can be learnt from: the answered ones, in the answer format that is asked for."""

import re
from collections import Counter
from collections.abc import Sequence

from safer_steer.answer_tags import split_parts
from safer_steer.dialogue import Turn


class Unusable(Exception):
    """A dialogue that cannot be trained on: its reason in short, the detail, the key to set if one helps."""

    def __init__(self, reason: str, detail: str, advice: str = ""):
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail, self.advice = reason, detail, advice


def answered_turns(turns: Sequence[Turn]) -> list[Turn]:
    """The turns up to the last answered one.

    Raises:
        Unusable: there is none, or one before it lacks its answer.
    """
    turns = list(turns)
    while turns and turns[-1].assistant is None:
        turns.pop()
    if not turns:
        raise Unusable("no label tokens", "no turn has an answer")
    for number, turn in enumerate(turns, start=1):
        if not (turn.assistant or "").strip():
            raise Unusable("missing answer", f"turn {number} of {len(turns)} has no answer")
    return turns


def tagged_parts(turns: Sequence[Turn], tags: Sequence[str]) -> list[list[str]]:
    """The parts of every turn's answer, one for each tag; plain answers have one part.

    Raises:
        Unusable: an answer is not made of the tags.
    """
    found = [split_parts(turn.assistant or "", tags) for turn in turns]
    for number, parts in enumerate(found, start=1):
        if parts is None:
            wanted = "".join(f"<{tag}>...</{tag}>" for tag in tags)
            said = " ".join((turns[number - 1].assistant or "").split())[:80]
            detail = f'turn {number} of {len(turns)} is not {wanted}; it begins "{said}"'
            raise Unusable("wrong answer format", detail, _advice(turns[number - 1].assistant or "", tags))
    return found


def _advice(answer: str, tags: Sequence[str]) -> str:
    """The format that takes an answer."""
    own = list(dict.fromkeys(re.findall(r"<([A-Za-z][A-Za-z0-9_-]*)>", answer)))
    fits = own if own and split_parts(answer, own) is not None else []
    what = "these answers have no tags" if not fits else f"these answers have the tags {', '.join(fits)}"
    to = f".tags=[{','.join(fits)}]" if fits else "={}"  # without tags the system prompt that asks for them goes too
    return f"answer_format.tags is [{','.join(tags)}], but {what}: set answer_format{to}"


def most_frequent(advice: Sequence[str]) -> str:
    """What to change, by the advice that most rejects have."""
    found = Counter(filter(None, advice)).most_common(1)
    return found[0][0] if found else "correct the rows"
