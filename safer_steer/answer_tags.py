"""Answers made of tagged parts, such as `<thinking>...</thinking><answer>...</answer>`: the tags are a config value."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

THOUGHT_TAGS = ("think", "thinking", "thought", "reasoning")  # of reasoning models, and of the paper's format
ANSWER_TAG = "answer"  # of the paper's format
_OTHER_MARKS = {"think": (("[THINK]", "[/THINK]"), ("◁think▷", "◁/think▷"))}  # of Magistral and of Kimi-VL


def thought_marks(tags: Sequence[str]) -> list[tuple[str, str]]:
    """How models write the opening and the closing of each tag around thoughts."""
    return [marks for tag in tags for marks in ((f"<{tag}>", f"</{tag}>"), *_OTHER_MARKS.get(tag, ()))]


def check_tags(tags: list[str]) -> list[str]:
    """Checks the names of a tag list; an empty list means plain answers.

    Raises:
        ValueError: a name is not a word, or stands twice.
    """
    wrong = [tag for tag in tags if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", tag)]
    if wrong:
        raise ValueError(f"tag names are letters, digits, _ and -, without <>; got {', '.join(map(repr, wrong))}")
    if len(set(tags)) < len(tags):
        raise ValueError(f"each tag once, got {tags}")
    return tags


def split_parts(text: str, tags: Sequence[str]) -> list[str] | None:
    """The parts' text when the answer is exactly the tags' parts: each once, in order, none empty, nothing outside.

    Args:
        text: an answer.
        tags: tag names in order; empty for plain answers, whose one part is the text itself.

    Returns:
        One stripped text a tag, or None when the answer is not of this form.
    """
    if not tags:
        return [text.strip()] if text.strip() else None
    if any(text.count(f"<{tag}>") != 1 or text.count(f"</{tag}>") != 1 for tag in tags):
        return None
    pattern = r"\s*".join(rf"<{re.escape(tag)}>\s*(\S.*?)\s*</{re.escape(tag)}>" for tag in tags)
    found = re.fullmatch(pattern, text.strip(), re.DOTALL)
    return list(found.groups()) if found else None


@dataclass(frozen=True)
class SplitAnswer:
    """What a model said, taken apart.

    Attributes:
        answer: what it says to the user: what is judged and goes into the history.
        reasoning: its thoughts before that.
        problem: what is wrong with its tags, in words; "" when nothing is.
    """

    answer: str
    reasoning: str = ""
    problem: str = ""


def split_answer(text: str, reasoning_tags: Sequence[str], answer_tag: str | None = None) -> SplitAnswer:
    """Splits an answer into reasoning and the answer proper. A text without tags is the answer, byte for byte.

    Reasoning stands at the beginning, in one of its tags or several after each other; its first opening tag may be
    missing, as chat templates write it into the prompt. Tags that come later are part of the answer.

    Args:
        text: everything the model wrote.
        reasoning_tags: names of tags around thoughts, such as `think`.
        answer_tag: name of the tag that the answer must be in; None where none is asked for.
    """
    rest, thoughts = text, list[str]()
    marks = thought_marks(reasoning_tags)
    for opening, closing in marks:
        head, found, tail = rest.partition(closing)
        if found and opening not in head and not thoughts:
            rest, thoughts = tail, [head]
    while opened := next((pair for pair in marks if rest.lstrip().startswith(pair[0])), None):
        opening, closing = opened
        head, found, tail = rest.lstrip().removeprefix(opening).partition(closing)
        thoughts.append(head)
        if not found:
            return SplitAnswer("", _joined(thoughts), f"{opening} is not closed")
        rest = tail
    rest = rest.strip() if thoughts else rest
    if answer_tag is None:
        return SplitAnswer(rest, _joined(thoughts))
    parts = split_parts(rest, [answer_tag])
    if parts is None:
        return SplitAnswer(rest, _joined(thoughts), f"not in <{answer_tag}>...</{answer_tag}>")
    return SplitAnswer(parts[0], _joined(thoughts))


def spoken(text: str) -> str:
    """What of an answer is said to the user, and so is judged: without thoughts in their tags, out of the answer's tag.

    A refusal whose thoughts name the harm is a refusal; an answer whose thoughts never end says nothing.
    """
    return unwrapped(split_answer(text, THOUGHT_TAGS).answer)


def unwrapped(answer: str) -> str:
    """An answer without the tag that is around all of it, where there is one."""
    parts = split_parts(answer, [ANSWER_TAG])
    return answer if parts is None else parts[0]


def _joined(thoughts: Sequence[str]) -> str:
    return "\n".join(thought.strip() for thought in thoughts if thought.strip())


def join_parts(parts: Sequence[str], tags: Sequence[str]) -> str:
    """The parts in their tags; without tags the last part alone, which is the answer proper."""
    if not tags:
        return parts[-1]
    return "".join(f"<{tag}>{part}</{tag}>" for tag, part in zip(tags, parts, strict=True))
