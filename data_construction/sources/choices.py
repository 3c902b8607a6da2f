"""Multiple-choice questions as one text, the way all sources with choices write them."""

from collections.abc import Sequence

from data_construction.sources.row import BadRow

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def with_choices(text: str, choices: Sequence[object]) -> str:
    """The question with "Choices: (A) ... (B) ..." on a line of its own."""
    options = " ".join(f"({letter}) {choice}" for letter, choice in zip(LETTERS, choices, strict=False))
    return f"{text}\nChoices: {options}" if choices else text


def chosen(choices: Sequence[object], letter: str) -> str:
    """The choice that a letter names.

    Raises:
        BadRow: it names none of them.
    """
    allowed = LETTERS[: len(choices)]
    if len(letter) != 1 or letter not in allowed:
        raise BadRow("bad answer", f"answer {letter!r} is none of the choices {', '.join(allowed)}")
    return str(choices[allowed.index(letter)])
