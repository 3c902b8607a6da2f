"""Duplicates across splits, exact and near, with Stage I's means and settings (`quality.near_duplicates`).

Stage I has compared all dialogues as they were written; bootstrapping rewrites user turns afterwards, so a train row
may have come to say what a row of another split says. STEER-Bench is safe from train rows, and STEER-RL from STEER-SFT.
"""

import sqlite3
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from data_construction.assemble.facts import RowFacts
from data_construction.config import NearDuplicates
from data_construction.quality.dedup import exact_key
from data_construction.quality.near import NearIndex, Signer
from safer_steer.dialogue import Dialogue, Turn


class SplitDuplicates:
    """The user turns of the splits filled so far; a row's index lies in a temporary SQLite file, not in memory."""

    def __init__(self, settings: NearDuplicates | None):
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.execute("PRAGMA journal_mode=OFF")
        self._database.execute("PRAGMA synchronous=OFF")
        self._database.execute("CREATE TABLE exact (key TEXT PRIMARY KEY, split TEXT) WITHOUT ROWID")
        self._sign = Signer(settings) if settings else None
        self._index = NearIndex(self._database, settings) if settings else None

    def add(self, rows: Iterable[RowFacts], split: str) -> None:
        """Takes a split's rows in, as they are and, where bootstrapping rewrote them, as their template."""
        for facts in rows:
            row = facts.read()
            said = [[turn.user for turn in row.turns], [turn.template or turn.user for turn in row.turns]]
            for number, users in enumerate(said if said[0] != said[1] else said[:1]):
                self._database.execute("INSERT OR IGNORE INTO exact VALUES (?, ?)", (_exact(row, users), split))
                if self._index:
                    self._index.add(f"{split}/{row.id}/{number}", split, self._sign(users), _pictures(row))

    def rule(self, facts: RowFacts) -> str:
        """Leaves out rows that say what a row taken in says; the reason names its split."""
        row = facts.read()
        users = [turn.user for turn in row.turns]
        same = self._database.execute("SELECT split FROM exact WHERE key = ?", (_exact(row, users),)).fetchone()
        if same:
            return f"duplicate of {same[0]}"
        near = self._index.nearest(self._sign(users), _pictures(row)) if self._index else None
        return f"near duplicate of {near[1]}" if near else ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._database.close()


def _exact(row: Dialogue, users: list[str]) -> str:
    return exact_key(row.model_copy(update={"turns": [Turn(user=text) for text in users]}))


def _pictures(row: Dialogue) -> str:
    return " ".join(sorted(row.images))
