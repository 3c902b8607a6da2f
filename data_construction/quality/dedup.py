"""Drops duplicates, exact and near, from a file of dialogues, in one streaming pass with its index on disk.

Input: `candidates.jsonl`, in any order. Output: `dialogues.jsonl` without the duplicates, and `duplicates.jsonl` with
the id of each dropped row, of the row it repeats, and their similarity.

Rows are taken bench first, then by id, and each is compared with the rows kept before it, of all kinds: so the result
does not depend on the order in which rows were made, and no train row displaces a bench row. Memory does not grow with
the number of rows.
"""

import json
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_construction.config import NearDuplicates
from data_construction.quality.near import NearIndex, Signer
from safer_steer.dialogue import Dialogue, stable_hash
from safer_steer.errors import UserError
from safer_steer.store import dump_row, replacing

EXACT, NEAR = "duplicate", "near duplicate"


def deduplicate(candidates: Path, kept: Path, dropped: Path, settings: NearDuplicates | None) -> Counter[str]:
    """Writes both output files anew; returns how many rows were dropped, by reason.

    Args:
        candidates: dialogues, one a line.
        kept: where the lines that stay go, unchanged.
        dropped: where the duplicates are named.
        settings: what counts as a near-duplicate; None: only exact ones are dropped.

    Raises:
        UserError: a line is not a dialogue.
    """
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(dir=kept.parent, prefix=".dedup.") as folder:
        database = sqlite3.connect(Path(folder, "index.sqlite"), isolation_level=None)
        try:
            database.execute("PRAGMA journal_mode=OFF")
            database.execute("PRAGMA synchronous=OFF")
            database.execute("BEGIN")
            _take_in(candidates, database, settings)
            with replacing(kept) as stays, replacing(dropped) as leaves, candidates.open("rb") as lines:
                for offset, row in _decide(database, settings):
                    if row is None:
                        lines.seek(offset)
                        stays.write(lines.readline().decode("utf-8"))
                    else:
                        leaves.write(dump_row(row) + "\n")
                        counts[row["reason"]] += 1
        finally:
            database.close()
    return counts


def exact_key(row: Dialogue) -> str:
    """The same for two dialogues with the same pictures and the same words, case and white space apart."""
    turns = [[" ".join((text or "").casefold().split()) for text in (t.user, t.assistant)] for t in row.turns]
    return stable_hash(sorted(row.images), turns)


def _take_in(candidates: Path, database: sqlite3.Connection, settings: NearDuplicates | None) -> None:
    """All rows into a table that is ordered by (bench first, id)."""
    database.execute(
        "CREATE TABLE rows (train INTEGER, id TEXT, line INTEGER, exact TEXT, pictures TEXT, kind TEXT, task TEXT,"
        " signature BLOB, PRIMARY KEY (train, id)) WITHOUT ROWID"
    )
    sign = Signer(settings) if settings else None
    for offset, row in _lines(candidates):
        signature = sign(turn.user for turn in row.turns) if sign else None
        values = (row.meta.get("split") != "bench", row.id, offset, exact_key(row), " ".join(sorted(row.images)))
        values += (row.kind, row.meta.get("task"), signature)
        database.execute("INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)


def _lines(path: Path) -> Iterator[tuple[int, Dialogue]]:
    with path.open("rb") as file:
        offset = 0
        for number, line in enumerate(file, start=1):
            if line.endswith(b"\n") and line.strip():
                try:
                    yield offset, Dialogue.model_validate(json.loads(line.decode("utf-8")))
                except ValueError as error:
                    raise UserError(f"{path}:{number}: not a dialogue: {error}; mend or remove this line") from error
            offset += len(line)


def _decide(
    database: sqlite3.Connection, settings: NearDuplicates | None
) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """For each row in order its place in the file, and None if it stays, else why it goes."""
    database.execute("CREATE TABLE seen (exact TEXT PRIMARY KEY, id TEXT, kind TEXT) WITHOUT ROWID")
    index = NearIndex(database, settings) if settings else None
    rows = database.execute("SELECT * FROM rows ORDER BY train, id")
    for _, row_id, offset, exact, pictures, kind, task, signature in rows:
        facts = {"id": row_id, "task": task, "kind": kind}
        same = database.execute("SELECT id, kind FROM seen WHERE exact = ?", (exact,)).fetchone()
        if same:
            yield offset, facts | {"reason": EXACT, "of": same[0], "of_kind": same[1], "similarity": 1.0}
            continue
        near = index.nearest(signature, pictures) if index else None
        if near:
            like, of_kind, similarity = near
            yield offset, facts | {"reason": NEAR, "of": like, "of_kind": of_kind, "similarity": round(similarity, 3)}
            continue
        database.execute("INSERT INTO seen VALUES (?, ?, ?)", (exact, row_id, kind))
        if index:
            index.add(row_id, kind, signature, pictures)
        yield offset, None
