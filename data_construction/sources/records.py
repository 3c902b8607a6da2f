"""Record files -> records, one at a time: JSONL, JSON, CSV, TSV, parquet, and folders of `datasets.save_to_disk`.

A record is a dict with the file's own field names. What cannot be read becomes a record with a `problem` that names
file and line, and reading goes on where the format allows it. No reader holds more than one parquet batch.
"""

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import ijson
import pyarrow
import pyarrow.parquet

from safer_steer.errors import UserError

BATCH_ROWS = 32  # rows of a parquet file in memory at once; a picture can have several MB
MAX_FIELD_CHARS = 16 * 1024 * 1024  # of a CSV field; Python's own limit is 128 KiB
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
SAVED_DATASET = "state.json"  # what `datasets.save_to_disk` puts into each split's folder, and nobody else


@dataclass(frozen=True)
class Record:
    """One record; `where` is "line 3", "item 3" (of a JSON document, from 1) or "row 3" (of a table, from 1)."""

    where: str
    data: dict[str, Any]
    problem: str = ""


def read_records(path: Path, leave_out: frozenset[str] = frozenset()) -> Iterator[Record]:
    """Yields the records of one file in order.

    Args:
        path: a record file, or the `state.json` of a saved `datasets` split.
        leave_out: columns that parquet readers need not decode (pictures, when rows are only counted).

    Raises:
        UserError: the file's format is unknown.
    """
    if path.name == SAVED_DATASET:
        yield from _saved_dataset(path.parent, leave_out)
    elif path.suffix in READERS:
        reader = READERS[path.suffix]
        yield from reader(path, leave_out) if reader is _parquet else reader(path)
    else:
        raise UserError(
            f"{path}: no reader for {path.suffix or 'a file without ending'}; allowed: {', '.join(READERS)}"
        )


def _jsonl(path: Path) -> Iterator[Record]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield _parsed(f"line {number}", line)


def _parsed(where: str, line: bytes) -> Record:
    try:
        data = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # also for numbers of more digits than Python converts
        return Record(where, {}, f"not JSON in UTF-8: {error}")
    return _checked(where, data)


def _checked(where: str, data: Any) -> Record:
    if not isinstance(data, dict):
        return Record(where, {}, f"is a JSON {type(data).__name__}, not an object")
    return Record(where, data)


def _json(path: Path) -> Iterator[Record]:
    """A list of objects, an object of objects (whose keys become the field `key`), one object, or misnamed JSONL."""
    with path.open("rb") as file:
        start = len(BYTE_ORDER_MARK) if file.read(len(BYTE_ORDER_MARK)) == BYTE_ORDER_MARK else 0
        file.seek(start)
        first_line = file.readline(MAX_FIELD_CHARS)
        if first_line.lstrip()[:1] == b"{" and file.read(256).strip() and not _parsed("", first_line).problem:
            yield from _jsonl(path)
            return
        file.seek(start)
        number = 0
        try:
            for key, item in _members(file, start, first_line.lstrip()[:1]):
                number += 1
                record = _checked(f"item {number}", item)
                yield record if key is None or record.problem else Record(record.where, {"key": key} | record.data)
        except (ijson.JSONError, ValueError, RecursionError) as error:
            yield Record(f"item {number + 1}", {}, f"not JSON from here on, the rest is lost: {error}")


def _members(file: BinaryIO, start: int, first: bytes) -> Iterator[tuple[str | None, Any]]:
    if first != b"{":
        yield from ((None, item) for item in ijson.items(file, "item", use_float=True))
        return
    for number, (key, item) in enumerate(ijson.kvitems(file, "", use_float=True)):
        if number == 0 and not isinstance(item, dict):
            file.seek(start)
            yield None, json.loads(file.read().decode("utf-8"))
            return
        yield key, item


def _csv(path: Path, separator: str = ",") -> Iterator[Record]:
    """Bytes that are not UTF-8 spoil their own row only: they are kept as surrogates and found afterwards."""
    csv.field_size_limit(MAX_FIELD_CHARS)
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        rows = csv.reader(file, delimiter=separator)
        header: list[str] | None = None
        while True:
            line = rows.line_num + 1
            try:
                values = next(rows, None)
            except csv.Error as error:
                yield Record(f"line {line}", {}, f"not CSV: {error}")
                continue
            if values is None:
                return
            if header is None:
                header = values
            elif values:
                yield _csv_record(f"line {line}", header, values)


def _csv_record(where: str, header: list[str], values: list[str]) -> Record:
    if len(values) != len(header):
        return Record(where, {}, f"{len(values)} columns, but the header names {len(header)}")
    try:
        "".join(values).encode("utf-8")
    except UnicodeEncodeError as error:
        return Record(where, {}, f"not UTF-8: byte 0x{ord(error.object[error.start]) & 0xFF:02x}")
    return Record(where, dict(zip(header, values, strict=True)))


def _tsv(path: Path) -> Iterator[Record]:
    yield from _csv(path, "\t")


def _parquet(path: Path, leave_out: frozenset[str]) -> Iterator[Record]:
    def batches() -> Iterator[pyarrow.RecordBatch]:
        with pyarrow.parquet.ParquetFile(path, pre_buffer=False) as file:
            columns = [name for name in file.schema_arrow.names if name not in leave_out]
            yield from file.iter_batches(batch_size=BATCH_ROWS, columns=columns)

    yield from _rows(batches(), "parquet")


def _saved_dataset(folder: Path, leave_out: frozenset[str]) -> Iterator[Record]:
    import datasets  # takes more than a second, and few runs need it

    def batches() -> Iterator[pyarrow.Table]:
        rows = datasets.load_from_disk(str(folder))
        rows = rows.remove_columns([name for name in rows.column_names if name in leave_out])
        yield from rows.with_format("arrow").iter(BATCH_ROWS)

    yield from _rows(batches(), "a saved dataset")


def _rows(batches: Iterator[pyarrow.RecordBatch | pyarrow.Table], what: str) -> Iterator[Record]:
    number = 0
    try:
        for batch in batches:
            for data in batch.to_pylist():
                number += 1
                yield Record(f"row {number}", data)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        yield Record(f"row {number + 1}", {}, f"not {what} from here on, the rest is lost: {error}")


READERS: dict[str, Callable[..., Iterator[Record]]] = {
    ".parquet": _parquet,
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _tsv,
}
