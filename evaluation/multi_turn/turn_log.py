"""The turns of dialogues that are not at their end yet, so that a killed run goes on in mid-dialogue.

`<folder>/turns.jsonl`: one row for each answer (id `<dialogue>:<turn>`) and for each user turn that a tutor wrote
(`<dialogue>:<turn>:user`). Removed when all dialogues are done.
"""

from pathlib import Path
from typing import Any, Self

from safer_steer.store import JsonlStore

TURNS = "turns.jsonl"


class TurnLog:
    """Keeps what a model call gave, and gives it back instead of a second call."""

    def __init__(self, folder: Path):
        self.path = folder / TURNS
        self._store = JsonlStore(self.path)
        self._rows: dict[str, dict[str, Any]] = {row["id"]: row for row in self._store.rows()}

    def get(self, key: str) -> dict[str, Any] | None:
        """The row of a key, None when there is none yet."""
        return self._rows.get(key)

    def put(self, key: str, row: dict[str, Any]) -> None:
        """Keeps a row, on disk before anything goes on."""
        self._store.append({"id": key} | row)
        self._rows[key] = row

    def remove(self) -> None:
        """Deletes the file: every dialogue has its row in `answers.jsonl`."""
        self._store.close()
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._store.close()
