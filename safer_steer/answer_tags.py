"""Answers made of tagged parts, such as `<thinking>...</thinking><answer>...</answer>`: the tags are a config value."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

THOUGHT_TAGS = ("think", "thinking", "thought", "reasoning")  # of reasoning models, and of the paper's format
ANSWER_TAG = "answer"  # of the paper's format
LONGEST_MARK = 80  # characters
_QUOTES = "`'\"“”‘’"
_BLANK = re.compile(r"[\s\u00ad\u200b-\u200f\u2060-\u2064\ufeff]*")  # white space, and what nobody sees
_CHANNEL = r"(?:<\|start\|>assistant)?<\|channel\|>{}[^<{{]*(?:<\|constrain\|>\w+)?<\|message\|>"
_OTHER_MARKS = (
    (r"\[think\]", r"\[/think\]"),  # Magistral
    ("◁think▷", "◁/think▷"),  # Kimi-VL
    (r"<\|start_thinking\|>", r"<\|end_thinking\|>"),  # Command A
    (r"<\|begin_of_thought\|>", r"<\|end_of_thought\|>"),  # OpenThinker
    (r"<\|channel>thought\b", r"<channel\|>"),  # Gemma
    ("<unused94>thought", "<unused95>"),  # MedGemma
    (_CHANNEL.format("(?:analysis|commentary)"), _CHANNEL.format("final")),  # gpt-oss
    (r"\A(?-i:analysis(?=[A-Z\"'{]))", "(?-i:assistantfinal)"),  # the same without its special tokens
)


Marks = Sequence[tuple[re.Pattern[str], re.Pattern[str]]]


@lru_cache
def thought_marks(tags: Sequence[str]) -> Marks:
    """What opens and what closes a thought, for each of the tags and, where `think` is one, each model that has marks
    of its own. Capitals do not matter, and a tag may have the model's name before it: `<seed:think>`, `<mm:think>`.

    Nothing else is a mark, nor is one that is quoted. What may be reasoning but has no mark, such as `<scratchpad>`, or
    words ("Here is my thought process:"), is left whole: it is judged as part of the answer, and a verdict inside it is
    asked for again.
    """
    named = [(rf"<(?:\w+:|longcat_)?{tag}>", rf"</(?:\w+:|longcat_)?{tag}>") for tag in map(re.escape, tags)]
    marks = [*named, *(_OTHER_MARKS if THOUGHT_TAGS[0] in tags else ())]
    return [(_unquoted(opening), _unquoted(closing)) for opening, closing in marks]


def _unquoted(mark: str) -> re.Pattern[str]:
    """The mark, but not between quotation marks or backticks: a text that says what it is does not use it."""
    opened = rf"(?<!\A[{_QUOTES}])(?<![\s(\[][{_QUOTES}])"
    return re.compile(f"{opened}(?:{mark})|(?:{mark})(?![{_QUOTES}])", re.IGNORECASE)


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
    parts, rest = list[str](), text.strip()
    for tag in tags:
        before, _, inside = rest.partition(f"<{tag}>")
        part, closed, rest = inside.partition(f"</{tag}>")
        if before.strip() or not closed or not part.strip():
            return None
        parts.append(part.strip())
    return None if rest else parts


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

    Reasoning stands at the beginning, in one of its tags or several after each other. Tags that come later are part of
    the answer, and so is a closing one that was never opened: what stands before it was said. Where the prompt holds
    the opening tag, see `with_opening`. Where an answer tag is asked for and opened, all before it is reasoning, and
    all after it the answer, closed or not.

    Args:
        text: everything the model wrote.
        reasoning_tags: names of tags around thoughts, such as `think`.
        answer_tag: name of the tag that the answer must be in; None where none is asked for.
    """
    rest, thoughts, problem = text, list[str](), ""
    marks = thought_marks(tuple(reasoning_tags))
    if closed := next(filter(None, (closing.match(rest, first_visible(rest)) for _, closing in marks)), None):
        thoughts, rest = [""], rest[closed.end() :]  # there was no thought
    while opened := next(_opened(rest[first_visible(rest) :], marks), None):
        mark, inside, closing = opened
        closed = closing.search(inside)
        if not closed:
            problem = f"{mark.strip()} is not closed"
            if answer_tag is None or f"<{answer_tag}>" not in inside:
                return SplitAnswer("", _joined([*thoughts, inside]), problem)
            rest = inside
            break
        thoughts.append(inside[: closed.start()])
        rest = inside[closed.end() :]
    rest = rest.strip() if thoughts else rest
    if answer_tag is None:
        return SplitAnswer(rest, _joined(thoughts))
    if f"<{answer_tag}>" not in rest:
        return SplitAnswer(rest, _joined(thoughts), f"not in <{answer_tag}>...</{answer_tag}>")
    if not split_parts(rest, [answer_tag]):
        problem = problem or f"not exactly <{answer_tag}>...</{answer_tag}>"
    before, *parts = re.split(rf"</?{re.escape(answer_tag)}>", rest)
    return SplitAnswer("\n".join(parts).strip(), _joined([*thoughts, before]), problem)


def _opened(text: str, marks: Marks) -> Iterator[tuple[str, str, re.Pattern[str]]]:
    """The mark that a text begins with, what follows it, and what closes it."""
    for opening, closing in marks:
        if found := opening.match(text):
            yield found[0], text[found.end() :], closing


def first_visible(text: str) -> int:
    """Where a text's first visible character is."""
    found = _BLANK.match(text)
    return found.end() if found else 0


def opening_at_end(prompt: str) -> str:
    """The mark with which a prompt, as the chat template renders it, opens a thought of the answer; "" for none."""
    end = prompt.rstrip()[-LONGEST_MARK:]
    marks = (found for opening, _ in thought_marks(THOUGHT_TAGS) for found in opening.finditer(end))
    return next((found[0] for found in marks if found.end() == len(end)), "")


def with_opening(text: str, opening: str) -> str:
    """An answer whose thought the prompt opens, with the mark that it opens it with; "" for none.

    What has no text, or opens a thought itself, is left as it is.
    """
    begun = next(_opened(text[first_visible(text) :], thought_marks(THOUGHT_TAGS)), None)
    return text if begun or not text.strip() else opening + text


def form_note(problem: str) -> str:
    """The note for judge and tutor on a problem with an answer's tags; "" where there is none."""
    return f"form: {problem}" if problem else ""


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
