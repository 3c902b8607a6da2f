"""Markdown that our reports and pages are made of."""

import re
from collections.abc import Sequence
from typing import Any


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table; the first column is text, the others are set to the right."""
    lines = [head, [":--", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def plain(text: str) -> str:
    """A text on one line that is shown as it is, in a table too: nothing in it is markup."""
    text = text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
    return " ".join(re.sub(r"([`*_\[\]])", r"\\\1", text).split())
