"""A map from keys to small values that lies on disk, for what a run must remember of each of its rows."""

import hashlib
import sqlite3

CACHE_KIB = 8192  # pages that SQLite holds in memory


class DiskMap:
    """Keys (text or whole numbers) -> text or number, in a temporary SQLite file: memory does not grow with the keys.

    Keys are held as 64 bits of their SHA-256, as many as a row's id has. The file belongs to this object alone and is
    gone with it: what it holds must be read again from the rows, which are the truth.
    """

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        for setting in (f"cache_size=-{CACHE_KIB}", "journal_mode=OFF", "synchronous=OFF"):
            self._db.execute(f"PRAGMA {setting}")
        self._db.execute("CREATE TABLE items (key INTEGER PRIMARY KEY, value)")
        self._db.execute("BEGIN")  # one transaction that is never ended: nothing is to be made durable
        self._length = 0

    def get(self, key: str | int, default: str | int | None = None) -> str | int | None:
        """The key's value, or `default`."""
        row = self._db.execute("SELECT value FROM items WHERE key = ?", (_digest(key),)).fetchone()
        return default if row is None else row[0]

    def add(self, key: str | int, value: str | int = 1) -> bool:
        """Sets a key that is not there yet; returns False, and changes nothing, when it is."""
        added = self._db.execute("INSERT OR IGNORE INTO items VALUES (?, ?)", (_digest(key), value)).rowcount
        self._length += added
        return bool(added)

    def __setitem__(self, key: str | int, value: str | int) -> None:
        if not self.add(key, value):
            self._db.execute("UPDATE items SET value = ? WHERE key = ?", (value, _digest(key)))

    def __contains__(self, key: str | int) -> bool:
        return self.get(key) is not None

    def __len__(self) -> int:
        return self._length

    def close(self) -> None:
        """Gives the file up."""
        self._db.close()


def _digest(key: str | int) -> int:
    digest = hashlib.sha256(str(key).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
