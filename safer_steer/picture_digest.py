"""Digests of what pictures hold, for fingerprints: a picture replaced under its old name is another input.

Content is read, not only size and time: both can be what they were. Files are hashed as a stream, a few at once.
"""

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from safer_steer.dialogue import Dialogue, stable_hash
from safer_steer.errors import ImageError
from safer_steer.picture_files import picture_file
from safer_steer.row_files import read_rows

MAX_THREADS = 4  # hashing leaves the interpreter to others


def file_digest(path: Path) -> str | None:
    """The SHA-256 of a file's bytes; None where there is none that can be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):
        return None


def dialogue_pictures(path: str | Path) -> str:
    """16 hex digits of the pictures that the dialogues of a file name, by name and content; "" without a file."""
    path = Path(path)
    if not path.is_file():
        return ""
    rows = (row for row in read_rows(path, Dialogue) if isinstance(row, Dialogue))
    return _digest(path.parent, {name for row in rows for name in row.images})


def _digest(folder: Path, names: Iterable[str]) -> str:
    ordered = sorted(names)

    def of(name: str) -> str | None:
        try:
            return file_digest(picture_file(folder, name))
        except ImageError:
            return None

    with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool:
        return stable_hash(list(zip(ordered, pool.map(of, ordered), strict=True)))
