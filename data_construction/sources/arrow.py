"""Parquet files and folders of `datasets.save_to_disk`: only the wanted columns are read, a few rows at a time.

A cell that cannot be read rejects its row. A part of the file that cannot be read rejects every row in it.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from data_construction.sources.record import HowRead, Record, Wanted

BATCH_ROWS = 32  # in memory at once; a picture can have several MB
MAX_LOST = 1_000_000  # rows of a damaged part that are rejected one by one: a damaged file can state any number


def parquet_records(path: Path, how: HowRead, wanted: Wanted) -> Iterator[Record]:
    """The rows of a parquet file."""
    how.format = "parquet"
    try:
        file = pyarrow.parquet.ParquetFile(path, pre_buffer=False)
    except Exception as error:  # noqa: BLE001 - a reader of foreign bytes
        yield Record("row 1", {}, f"not parquet, all of it is lost: {error}")
        return
    with file:
        how.columns = tuple(file.schema_arrow.names)
        doubled, first = wanted.doubled(how.columns), 1
        names = [] if doubled else wanted.of(file.schema_arrow.names)
        for group in range(file.num_row_groups):
            total = file.metadata.row_group(group).num_rows
            yield from _group(file, group, names, first, total, doubled)
            first += total


def _group(
    file: pyarrow.parquet.ParquetFile, group: int, names: list[str], first: int, total: int, doubled: str
) -> Iterator[Record]:
    done, problem = 0, "the file's part with this row holds fewer rows than it says"
    try:
        batches = file.iter_batches(BATCH_ROWS, row_groups=[group], columns=names) if names else [None]
        for batch in batches:
            for data, bad in [({}, doubled)] * total if batch is None else _cells(batch):
                yield Record(f"row {first + done}", data, bad)
                done += 1
    except Exception as error:  # noqa: BLE001 - a reader of foreign bytes
        problem = f"the file's part with this row cannot be read: {error}"
    for number in range(done, min(total, done + MAX_LOST)):
        yield Record(f"row {first + number}", {}, problem)


def saved_records(path: Path, how: HowRead, wanted: Wanted) -> Iterator[Record]:
    """The rows of a saved `datasets` split; `path` is its `state.json`."""
    import datasets  # takes more than a second, and few runs need it

    how.format = "saved dataset"
    try:
        rows = datasets.load_from_disk(str(path.parent))
        how.columns = tuple(rows.column_names)
        total, rows = len(rows), rows.select_columns(wanted.of(rows.column_names)).with_format("arrow")
    except Exception as error:  # noqa: BLE001 - a reader of foreign bytes
        yield Record("row 1", {}, f"not a saved dataset, all of it is lost: {error}")
        return
    for start in range(0, total, BATCH_ROWS):
        numbers = range(start, min(total, start + BATCH_ROWS))
        try:
            found = list(_cells(rows[start : numbers.stop])) if rows.column_names else [({}, "")] * len(numbers)
        except Exception as error:  # noqa: BLE001 - a reader of foreign bytes
            found = [({}, f"the dataset's part with this row cannot be read: {error}")] * len(numbers)
        for number, (data, problem) in zip(numbers, found, strict=True):
            yield Record(f"row {number + 1}", data, problem)


def _cells(batch: pyarrow.RecordBatch | pyarrow.Table) -> Iterator[tuple[dict[str, Any], str]]:
    try:
        rows = batch.to_pylist()
    except Exception:  # noqa: BLE001 - found row by row
        yield from (_row(batch, number) for number in range(batch.num_rows))
        return
    yield from ((row, "") for row in rows)


def _row(batch: pyarrow.RecordBatch | pyarrow.Table, number: int) -> tuple[dict[str, Any], str]:
    row = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            row[name] = column[number].as_py()
        except Exception as error:  # noqa: BLE001 - a date after the year 9999, text that is not UTF-8, ...
            return {}, f"column {name} cannot be read: {error}"
    return row, ""
