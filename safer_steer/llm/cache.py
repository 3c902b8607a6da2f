"""Answers on disk (SQLite), keyed by everything that determines them, so that a resumed run pays for no call twice."""

import sqlite3
import time
from pathlib import Path
from typing import Any

from safer_steer.dialogue import stable_hash
from safer_steer.errors import UserError

BUSY_S = 60.0  # how long one process waits for another that writes


class ResponseCache:
    """Request -> answer; only what a model said is put in by the client, no failure.

    Several processes of one machine may share the file, each by an object of its own. Not for network file systems.
    """

    def __init__(self, path: str | Path):
        self._path = Path(path)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # SQLite itself lets one thread in at a time; every statement here is its own transaction.
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_S)
        self._run("PRAGMA synchronous=NORMAL")
        self._switch_to_wal()
        self._run("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL)")

    @staticmethod
    def key(request: dict[str, Any]) -> str:
        """The request's key: a hash of model, messages, sampling, schema and seed; no API key, no address."""
        return stable_hash(request)

    def get(self, key: str) -> str | None:
        """The answer, or None."""
        row = self._run("SELECT answer FROM answers WHERE key = ?", key).fetchone()
        return row[0] if row else None

    def put(self, key: str, answer: str) -> None:
        """Stores an answer."""
        self._run("INSERT OR REPLACE INTO answers VALUES (?, ?)", key, answer)

    def is_empty(self) -> bool:
        """Whether no answer is in it."""
        return self._run("SELECT 1 FROM answers LIMIT 1").fetchone() is None

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    def _run(self, statement: str, *values: str) -> sqlite3.Cursor:
        try:
            return self._db.execute(statement, values)
        except sqlite3.Error as error:
            raise UserError(
                f"response cache {self._path}: {error}; free disk space, or remove the file (its answers are asked "
                "for again), then run the same command again"
            ) from error

    def _switch_to_wal(self) -> None:
        """Several processes that open a new file at once get in each other's way here, whatever the time-out."""
        deadline = time.monotonic() + BUSY_S
        while True:
            try:
                self._db.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise UserError(f"response cache {self._path}: {error}") from error
                time.sleep(0.02)
