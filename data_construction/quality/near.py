"""Near-duplicates by MinHash LSH: signatures and banding from datasketch, the band table in SQLite, not in memory."""

import sqlite3
from collections.abc import Iterable

import numpy as np
from datasketch import MinHash, MinHashLSH

from data_construction.config import NearDuplicates
from data_construction.quality.turns import words

SEED = 1  # of the permutations: the same signatures in every run


def shingles(users: Iterable[str], size: int) -> set[bytes]:
    """The text's runs of `size` words; a shorter text is one shingle."""
    found = words(" ".join(users))
    return {" ".join(found[start : start + size]).encode() for start in range(max(1, len(found) - size + 1))}


class Signer:
    """Makes the MinHash signatures of dialogues: `permutations` numbers of 4 bytes each."""

    def __init__(self, settings: NearDuplicates):
        self._size = settings.shingle_words
        self._empty = MinHash(num_perm=settings.permutations, seed=SEED)

    def __call__(self, users: Iterable[str]) -> bytes:
        """The signature of a dialogue's user turns."""
        minhash = self._empty.copy()
        minhash.update_batch(shingles(users, self._size))
        return minhash.hashvalues.astype(np.uint32).tobytes()


class NearIndex:
    """The rows kept so far, found by the bands of their signatures (threshold and number of bands as in datasketch)."""

    def __init__(self, database: sqlite3.Connection, settings: NearDuplicates):
        self._database, self._settings = database, settings
        # Found rows are compared by their whole signatures, so a false find costs time only: weigh misses more.
        lsh = MinHashLSH(threshold=min(settings.threshold, 0.95), num_perm=settings.permutations, weights=(0.02, 0.98))
        self._bands, self._rows = lsh.b, lsh.r
        database.execute("CREATE TABLE bands (band BLOB, id TEXT, PRIMARY KEY (band, id)) WITHOUT ROWID")
        database.execute("CREATE TABLE kept (id TEXT PRIMARY KEY, kind TEXT, signature BLOB) WITHOUT ROWID")

    def nearest(self, signature: bytes, pictures: str) -> tuple[str, str, float] | None:
        """Id, kind and similarity of the most similar kept row at or above the threshold; of equals the first id."""
        bands = self._bands_of(signature, pictures)
        like = f"SELECT id FROM bands WHERE band IN ({', '.join('?' * len(bands))})"
        found = self._database.execute(f"SELECT id, kind, signature FROM kept WHERE id IN ({like}) ORDER BY id", bands)
        mine, best = np.frombuffer(signature, np.uint32), None
        for row_id, kind, other in found:
            similarity = float(np.mean(mine == np.frombuffer(other, np.uint32)))
            if similarity >= self._settings.threshold and (best is None or similarity > best[2]):
                best = row_id, kind, similarity
        return best

    def add(self, row_id: str, kind: str, signature: bytes, pictures: str) -> None:
        """Takes a kept row in."""
        self._database.execute("INSERT INTO kept VALUES (?, ?, ?)", (row_id, kind, signature))
        self._database.executemany(
            "INSERT OR IGNORE INTO bands VALUES (?, ?)",
            [(band, row_id) for band in self._bands_of(signature, pictures)],
        )

    def _bands_of(self, signature: bytes, pictures: str) -> list[bytes]:
        """The keys that find a row: the band's number, its part of the signature, the pictures where they count."""
        width = 4 * self._rows
        group = pictures.encode() if self._settings.among == "same_picture" else b""
        starts = range(0, width * self._bands, width)
        return [start.to_bytes(4, "big") + signature[start : start + width] + group for start in starts]
