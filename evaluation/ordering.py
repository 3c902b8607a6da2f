"""Puts the rows of a finished JSONL file into the order of their tasks, so that a run that was killed and resumed ends
with the same bytes as one that was not. Rows are moved, never parsed anew; memory is one number a row.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from safer_steer.store import read_jsonl


def put_in_order(path: Path, ids: Sequence[str]) -> None:
    """Rewrites a file with its rows sorted by the place of their id in `ids`; rows of other ids stay at the end.

    Nothing is written when they are in order already. The file is replaced whole or not at all.
    """
    places = {name: number for number, name in enumerate(ids)}
    offsets, start = [], 0
    with path.open("rb") as file:
        lines = (line for line in file if line.endswith(b"\n"))
        for row, line in zip(read_jsonl(path), lines, strict=True):
            offsets.append((places.get(row["id"], len(places)), start, len(line)))
            start += len(line)
    if offsets == sorted(offsets):
        return
    temporary = path.with_name(f".{path.name}.ordered")
    with path.open("rb") as source, temporary.open("wb") as target:
        for _, offset, length in sorted(offsets):
            source.seek(offset)
            target.write(source.read(length))
        target.flush()
        os.fsync(target.fileno())
    temporary.replace(path)
