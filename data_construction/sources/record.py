"""What every reader of record files yields, and what it says of how it read a file."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Record:
    """One record; `where` is "line 3", "item 3" (of a JSON document, from 1) or "row 3" (of a table, from 1).

    What cannot be read is a record with a `problem`.
    """

    where: str
    data: dict[str, Any]
    problem: str = ""


@dataclass
class HowRead:
    """How a file was read; complete once all of its records have been taken."""

    path: Path
    format: str = ""
    encoding: str = ""
    delimiter: str = ""
    columns: tuple[str, ...] = ()
    rows: int = 0
    complete: bool = False

    def __str__(self) -> str:
        details = [self.format, self.encoding, self.delimiter and f"delimiter {self.delimiter!r}"]
        rows = f"{'' if self.complete else 'the first '}{self.rows:,} row{'' if self.rows == 1 else 's'}"
        return f"read {self.path}: {', '.join([*filter(None, details), rows])}"


@dataclass(frozen=True)
class Wanted:
    """Which columns of a table are needed.

    Attributes:
        names: the top-level names that the field map and the source look at; None: all.
        left_out: of these, names that need not be decoded (pictures, when rows are only counted).
    """

    names: frozenset[str] | None = None
    left_out: frozenset[str] = frozenset()

    def of(self, columns: list[str]) -> list[str]:
        """The columns to read, in the table's order."""
        return [name for name in columns if (self.names is None or name in self.names) and name not in self.left_out]

    def doubled(self, columns: Sequence[str]) -> str:
        """What is wrong with a table that has a wanted column twice, "" for nothing."""
        twice = [name for name, times in Counter(columns).items() if times > 1 and name in (self.names or ())]
        return f"the header names {twice[0]!r} twice" if twice else ""
