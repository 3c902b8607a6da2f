"""JSONL files that users write or change: read to their end, row by row. A bad row is rejected, and the rest continues.

One way for the benchmarks of evaluation, the data of SFT and GRPO, and exports. Files that only our own stages write
are read by `store`, which takes a line without an end for one that was being written when the run was killed.
"""

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from safer_steer.dialogue import Dialogue
from safer_steer.errors import UserError
from safer_steer.store import dump_row

SHOWN = 6  # fields that a row lacks (a dialogue requires so many), and bad rows, that a message names
MAX_BRACKETS = 200  # a row with fewer is never nested too deep
Row = TypeVar("Row", bound=BaseModel)
_ESCAPED_HALF = re.compile(rb"\\u[dD][89a-fA-F]")  # in UTF-8 half of a surrogate pair can only be an escape


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used: FILE:LINE, the reason to count it under, what exactly is wrong, and the id that it has
    of its own, "" without one.
    """

    id: str
    reason: str
    detail: str
    own_id: str = ""

    @classmethod
    def at(cls, path: Path, line: int, reason: str, detail: str, own_id: str = "") -> "BadRow":
        """The bad row of a line, counted from 1."""
        return cls(f"{path.name}:{line}", reason, f"{path}:{line}: {detail}", own_id)

    def as_dict(self) -> dict[str, str]:
        """For a rejects file."""
        return {"id": self.id, "reason": self.reason, "detail": self.detail}


def first_few(problems: Sequence[str]) -> list[str]:
    """The first of several problems, and how many more there are."""
    more = len(problems) - SHOWN
    return [*problems[:SHOWN], *([f"and {more} more"] if more > 0 else [])]


def read_rows(path: str | Path, model: type[Row]) -> Iterator[Row | BadRow]:
    """Yields the rows of a file as `model` and, in their places, the rows that are none.

    Raises:
        UserError: as `numbered_rows`.
    """
    return (row for _, row in numbered_rows(path, model))


def numbered_rows(path: str | Path, model: type[Row]) -> Iterator[tuple[int, Row | BadRow]]:
    """Yields line number, from 1, and row, for all lines that are not blank.

    Raises:
        UserError: there is no such file, or it is not in UTF-8 at all.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"file not found: {path}; check the path, or run the stage that writes it")
    with path.open("rb") as file:
        encoding = json.detect_encoding(file.read(4))
        if not encoding.startswith("utf-8"):
            raise UserError(f"{path} is in {encoding.upper()}; save it as UTF-8")
        file.seek(0)
        lines = (line for whole in file for line in whole.rstrip(b"\r\n").split(b"\r"))  # JSON escapes those in texts
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield number, _row(line, model, path, number)


def _row(line: bytes, model: type[Row], path: Path, number: int) -> Row | BadRow:
    data: Any = None

    def bad(reason: str, detail: str) -> BadRow:
        return BadRow.at(path, number, reason, detail, _own_id(data))

    try:
        text = line.decode("utf-8-sig")
        data = json.loads(text, parse_constant=lambda _: None, parse_float=_finite, object_pairs_hook=named_once)
    except (ValueError, RecursionError) as error:
        return bad("not JSON", f"not JSON in UTF-8: {error}")
    if _ESCAPED_HALF.search(line) and not _is_unicode(data):
        return bad("text is not Unicode", f"{_name(data)}holds half of a surrogate pair")
    try:
        row = model.model_validate(data)
    except ValidationError as error:
        return bad("bad row", f"{_name(data)}{_said(error)}")
    if line.count(b"[") + line.count(b"{") > MAX_BRACKETS and not _is_writable(row):
        return bad("bad row", f"{_name(data)}nested too deep to be written again")
    if isinstance(row, Dialogue) and (unseen := _unseen(row)):
        return bad("picture not shown", f"{_name(data)}no turn names {unseen}; put it into a turn's images")
    return row


def named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, for `json.loads`.

    Raises:
        ValueError: it has a name twice.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} stands twice in one object")
    return found


def _finite(text: str) -> float | None:
    """A number; nothing for one that JSON cannot hold, as for NaN, which tables write where they have nothing."""
    number = float(text)
    return number if math.isfinite(number) else None


def _is_writable(row: BaseModel) -> bool:
    try:
        dump_row(row)
    except (ValueError, RecursionError):
        return False
    return True


def _unseen(dialogue: Dialogue) -> str:
    """The pictures that no turn shows, "" for none."""
    named = {number for turn in dialogue.turns for number in turn.images}
    left = [f"picture {number} ({name!r:.80})" for number, name in enumerate(dialogue.images) if number not in named]
    return ", ".join(left) if named else ""


def _own_id(data: Any) -> str:
    name = data.get("id") if isinstance(data, dict) else None
    return name if isinstance(name, str) else ""


def _name(data: Any) -> str:
    name = _own_id(data)
    return f"row {name!a:.80}: " if name else ""


def _said(error: ValidationError) -> str:
    """The fields that are missing, and the first other error: field, rule and what was there."""
    errors = [(".".join(map(str, item["loc"])), item) for item in error.errors(include_url=False)]
    missing = [place for place, item in errors if item["type"] == "missing"]
    wrong = [(place, item) for place, item in errors if item["type"] != "missing"]
    said = [f"{', '.join(missing[:SHOWN])}: Field required"] if missing else []
    for place, item in wrong[:1]:
        got = "" if isinstance(item["input"], dict) else f", got {item['input']!a:.80}"
        said.append((f"{place}: " if place else "") + item["msg"] + got)
    more = len(missing[SHOWN:]) + len(wrong[1:])
    return "; ".join(said) + (f" (and {more} more)" if more else "")


def _is_unicode(data: Any) -> bool:
    """False for half of a surrogate pair, which JSON can hold and no tokenizer and no file takes."""
    try:
        json.dumps(data, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
