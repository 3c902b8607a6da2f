"""The rules that a JSON schema cannot say: how many turns, one question each, lengths, the picture, the language."""

import itertools
import re
import unicodedata
from collections.abc import Sequence

from data_construction.calls import Problem
from data_construction.config import Quality
from data_construction.quality.language import wrong_language

_LETTERS_THAT_ARE_WORDS = r"\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"  # Japanese, Chinese, Korean
_LETTER = rf"[^\W{_LETTERS_THAT_ARE_WORDS}]"  # of a longer word
_WORD = re.compile(rf"[{_LETTERS_THAT_ARE_WORDS}]|{_LETTER}+")
GROUP = 3  # digits of a group of a large number
NEAR = 16  # characters before a number that tell what it is a part of
_NUMBER = re.compile(r"[-+]?(\d+)([.,]\d+)*")
_NEGATIVE = re.compile("[\u2010-\u2013\u2212\ufe63\uff0d]")  # hyphens, en dash, minus
_RAISED = frozenset(
    letter
    for letter in map(chr, range(0xA0, 0x2190))
    if unicodedata.decomposition(letter).startswith(("<super>", "<sub>", "<fraction>"))
    and not unicodedata.normalize("NFKC", letter).isalpha()
)
_SIGNED = re.compile(
    r"-$|[=≈<>(]\s*-\s+$|[\w)]\+$"  # its sign, or that of a sum
    r"|(?:[/⁄^±∓√∛∜]|\\pm|sqrt|cbrt)\s*[({\[]?\s*$"
)
_SCALES = r"(?:hundred|thousand|milli(?:on|ard|ón|ão)|billion|trillion|lakh|crore)\w*|[十百千万萬亿億백천만억]"
_GOES_ON = re.compile(
    rf"[ \t]*(?:[/⁄^{''.join(sorted(_RAISED))}]|{_SCALES}|(?:[×x*·]|\\times)[ \t]*10(?!\d))|[ \t]+\d+[ \t]*[/⁄][ \t]*\d"
)
_MINUEND = re.compile(r"\d\s*$")
_GROUP_BEFORE, _GROUP_AFTER = re.compile(r"(?<![\d.,])\d{1,3}[ '’]$"), re.compile(r"[ '’]\d{3}(?!\d)")
_QUESTION = re.compile(r"[?？؟][?？؟!]*")  # a run of marks ends one question


def words(text: str) -> list[str]:
    """The text's words in one spelling (NFKC, small letters); each Chinese, Japanese or Korean letter is a word."""
    return _WORD.findall(_one_spelling(text))


def longest_turn(rules: Quality, question: str) -> int:
    """The most words that a turn made from this question may have."""
    return max(rules.max_turn_words, len(words(question)))


def turn_problems(users: Sequence[str], n_turns: int, rules: Quality, question: str) -> list[Problem]:
    """Everything that is wrong with a dialogue's user turns; [] when nothing is.

    Args:
        users: the user turns in order.
        n_turns: how many were asked for.
        rules: the limits.
        question: what the turns were made from; a turn may be as long as it.
    """
    problems = []
    if len(users) != n_turns:
        problems.append(Problem("wrong number of turns", f"asked for {n_turns} user turns, got {len(users)}"))
    if empty := _numbers(users, lambda text: not text.strip()):
        return [*problems, Problem("empty turn", f"turn(s) {empty} have no text")]
    longest = longest_turn(rules, question)
    checks = (
        ("several questions in a turn", "more than one question", lambda text: len(_QUESTION.findall(text)) > 1),
        ("turn too short", f"fewer than {rules.min_turn_words} words", lambda t: len(words(t)) < rules.min_turn_words),
        ("turn too long", f"more than {longest} words", lambda text: len(words(text)) > longest),
    )
    for reason, what, is_wrong in checks:
        if found := _numbers(users, is_wrong):
            problems.append(Problem(reason, f"turn(s) {found} have {what}"))
    first_of: dict[tuple[str, ...], int] = {}
    for number, text in enumerate(users, start=1):
        if (first := first_of.setdefault(tuple(words(text)), number)) != number:
            problems.append(Problem("repeated turn", f"turn {number} says the same as turn {first}"))
            break
    pointers = {_spaced(pointer) for pointer in rules.picture_words}
    if pointers and not any(pointer in said for said in map(_spaced, users) for pointer in pointers):
        problems.append(Problem("no reference to the picture", "no turn refers to the picture"))
    if other := wrong_language(" ".join(users), tuple(rules.languages)):
        wanted = ", ".join(rules.languages)
        problems.append(Problem("wrong language", f"the turns are in {other!r}, wanted {wanted}"))
    return problems


def answer_problems(answers: Sequence[str | None], rules: Quality, reference: str | None) -> list[Problem]:
    """Everything that is wrong with a dialogue's assistant turns, where the generator was asked for them.

    Args:
        answers: the assistant turns in order.
        rules: the limits.
        reference: the answer that the last turn must state, where it is known.
    """
    if missing := _numbers(answers, lambda text: not (text or "").strip()):
        return [Problem("missing answer", f"assistant turn(s) {missing} have no text")]
    problems = []
    limit = max(rules.max_answer_words, len(words(reference or "")) * 2)
    if long := _numbers(answers, lambda text: len(words(text)) > limit):
        problems.append(Problem("answer too long", f"assistant turn(s) {long} have more than {limit} words"))
    if reference is not None and answers and not states(answers[-1], reference):
        problems.append(
            Problem("final answer differs", f"the last assistant turn does not state the answer {reference!r}")
        )
    return problems


def _numbers(texts: Sequence, is_wrong) -> list[int]:
    return [number for number, text in enumerate(texts, start=1) if is_wrong(text)]


def states(answer: str, reference: str) -> bool:
    """Whether the reference stands in the answer by itself, in any spelling: not in a longer word or number. A number
    is none where it has another sign, or is a part of a fraction, power, root or larger number.
    """
    wanted = _NEGATIVE.sub("-", _one_spelling(reference).strip().rstrip(".!?"))
    number = _NUMBER.fullmatch(wanted)
    said = _NEGATIVE.sub("-", _unraised(answer) if number else _one_spelling(answer))
    stated = r"\s*".join(map(re.escape, re.findall(r"\w+|[^\w\s]", wanted)))
    places = re.finditer(rf"(?<!{_LETTER})(?<!\d[.,]){stated}(?!{_LETTER})(?![.,]\d)", said)
    if not number:
        return any(places)
    groups = wanted[0] == "-", len(number[1]) == GROUP, not number[2] and len(number[1]) <= GROUP
    return any(_is_whole(said[: place.start()], said[place.end() :], *groups) for place in places)


def _is_whole(before: str, after: str, negative: bool, may_end: bool, may_begin: bool) -> bool:
    """Whether a number is one by itself, by what stands around it.

    Args:
        before: up to the number.
        after: from its end on.
        negative: it has a minus, which may also take it from another one.
        may_end: it may be the last group of digits of a larger number; so may `may_begin` say of the first.
    """
    if _SIGNED.search(before[-NEAR:]) or _GOES_ON.match(after) or (negative and _MINUEND.search(before[-NEAR:])):
        return False
    return not (may_end and _GROUP_BEFORE.search(before[-NEAR:])) and not (may_begin and _GROUP_AFTER.match(after))


def _unraised(text: str) -> str:
    """The text in one spelling, but raised and lowered numbers and fractions as they are: 3² is not 32."""
    runs = itertools.groupby(text, key=_RAISED.__contains__)
    return "".join("".join(run) if raised else _one_spelling("".join(run)) for raised, run in runs)


def _spaced(text: str) -> str:
    """The text's words with a space before and after each, so that a run of words is a part of it."""
    return f" {' '.join(words(text))} "


def _one_spelling(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()
