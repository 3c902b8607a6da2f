"""Cells of any format -> what a seed holds: text, plain JSON values, and an id made of the content."""

import datetime
import decimal
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from data_construction.sources.row import BadRow
from safer_steer.dialogue import stable_hash
from safer_steer.picture_digest import file_digest

Names = str | tuple[str, ...]
MAX_DEPTH = 100  # of what is kept with a seed
SCALARS = (str, bool, int, float, decimal.Decimal, datetime.date, datetime.time)


def alternatives(theirs: Names) -> tuple[str, ...]:
    """The names that a field may have."""
    return (theirs,) if isinstance(theirs, str) else theirs


def first_of(data: Any, theirs: Names) -> Any:
    """The first of the alternatives that has a value; tables write NaN or empty text where they have nothing."""
    for dotted in alternatives(theirs):
        found = dig(data, dotted)
        if found is not None and found != "" and not (isinstance(found, float) and math.isnan(found)):
            return found
    return None


def dig(data: Any, dotted: str) -> Any:
    """The value under a name, in which dots may reach into objects."""
    if isinstance(data, dict) and dotted in data:
        return data[dotted]  # names with a dot of their own
    for part in dotted.split("."):
        data = data.get(part) if isinstance(data, dict) else None
    return data


def as_text(value: Any) -> str | None:
    """A cell as text: tables without types hold numbers, dates and truth values as text, so they are text everywhere.
    None for nothing, and for what is no text.

    Raises:
        UnicodeDecodeError: bytes that are not UTF-8.
    """
    if isinstance(value, bytes):
        return value.decode("utf-8") or None
    return (str(value) or None) if isinstance(value, SCALARS) else None


def as_list_or_object(value: Any) -> Any:
    """The list or object that a table without types holds as JSON text; anything else as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def plain(value: Any, depth: int = 0) -> Any:
    """The value as JSON can hold it; tables have dates, decimals, bytes and "not a number" too.

    Raises:
        BadRow: it is nested too deep.
    """
    if depth > MAX_DEPTH:
        raise BadRow("bad record", f"meta is nested more than {MAX_DEPTH} deep")
    if isinstance(value, dict):
        return {str(key): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, depth + 1) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float):
        return value
    return f"({len(value)} bytes)" if isinstance(value, bytes) else str(value).encode("utf-8", "replace").decode()


def matches(data: dict[str, Any], where: Mapping[str, Any]) -> bool:
    """Whether a record has the wanted values, compared as text: CSV holds True as text, nothing as an empty cell."""
    for name, wanted in where.items():
        allowed = wanted if isinstance(wanted, list) else [wanted]
        if _compared(dig(data, name)) not in {_compared(item) for item in allowed}:
            return False
    return True


def _compared(value: Any) -> str:
    return "" if value is None else str(value).lower()


def content_id(picture: Any, question: str, root: Path, digest: Callable[[Path], str | None] = file_digest) -> str:
    """16 hex digits of what the seed holds, for rows without an id: equal seeds have equal ids, wherever they lie.

    Args:
        picture: its bytes, its path, or None.
        question: the question.
        root: the data folder, for the name of a picture that is not there.
        digest: of a picture's file, None where it cannot be read.
    """
    if isinstance(picture, Path):
        content = digest(picture) or ["missing", picture.as_posix().removeprefix(f"{root.as_posix()}/")]
    else:
        content = hashlib.sha256(picture).hexdigest() if isinstance(picture, bytes) else repr(picture)
    return stable_hash(content, question)
