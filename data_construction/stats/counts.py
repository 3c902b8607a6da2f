"""Counts over dialogues, row by row: size, turns, kinds, sources, strategies."""

from collections import Counter
from collections.abc import Iterable
from typing import Any, Self

from safer_steer.dialogue import Dialogue


class DialogueCounts:
    """Adds up the dialogues of one split."""

    def __init__(self):
        self.turns: Counter[int] = Counter()
        self.turns_by_kind: dict[str, Counter[int]] = {}
        self.by: dict[str, Counter[str]] = {"kind": Counter(), "source": Counter(), "strategy": Counter()}

    @classmethod
    def of(cls, rows: Iterable[Dialogue]) -> Self:
        """The counts of some rows."""
        counts = cls()
        for row in rows:
            counts.add(row)
        return counts

    def add(self, row: Dialogue) -> None:
        """Counts one dialogue."""
        self.turns[len(row.turns)] += 1
        self.turns_by_kind.setdefault(row.kind, Counter())[len(row.turns)] += 1
        for name, counter in self.by.items():
            if value := getattr(row, name):
                counter[value] += 1

    @property
    def size(self) -> int:
        """Number of dialogues."""
        return self.turns.total()

    @property
    def mean_turns(self) -> float | None:
        """Mean number of user turns; None without a dialogue."""
        return sum(turns * number for turns, number in self.turns.items()) / self.size if self.size else None

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, for `stats.json`."""
        numbers: dict[str, Any] = {"size": self.size}
        if self.size:
            numbers |= {"turns_min": min(self.turns), "turns_max": max(self.turns)}
            numbers["turns_mean"] = round(self.mean_turns, 2)
            numbers["turns"] = {str(turns): self.turns[turns] for turns in sorted(self.turns)}
        return numbers | {name: dict(sorted(counter.items())) for name, counter in self.by.items()}
