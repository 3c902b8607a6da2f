"""Answers on disk (SQLite), keyed by everything that determines them, so that a resumed run pays for no call twice."""

import sqlite3
from pathlib import Path
from typing import Any

from safer_steer.dialogue import stable_hash


class ResponseCache:
    """Request -> answer text; only answers with outcome `ok` are put in, by the client."""

    def __init__(self, path: str | Path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL)")

    @staticmethod
    def key(request: dict[str, Any]) -> str:
        """The request's key: a hash of model, messages, sampling, schema and seed; no API key, no address."""
        return stable_hash(request)

    def get(self, key: str) -> str | None:
        """The answer, or None."""
        row = self._db.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None

    def put(self, key: str, answer: str) -> None:
        """Stores an answer."""
        self._db.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, answer))

    def close(self) -> None:
        """Closes the file."""
        self._db.close()
