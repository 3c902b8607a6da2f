"""Record files -> records, one at a time, whatever the format: JSONL, JSON, CSV, TSV, parquet, saved `datasets`.

A record is a dict with the file's own field names. What cannot be read becomes a record with a `problem`, and reading
continues with the next row. The same rows give the same records from every format, as far as it can express them: in
CSV and TSV every cell is text and an empty one is nothing, and a TSV cell holds no tab and no line break.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from data_construction.sources.arrow import parquet_records, saved_records
from data_construction.sources.json_files import json_records
from data_construction.sources.record import HowRead, Record, Wanted
from data_construction.sources.tables import csv_records, tsv_records
from safer_steer.errors import UserError

SAVED_DATASET = "state.json"  # what `datasets.save_to_disk` puts into each split's folder, and nobody else
READERS: dict[str, Callable[[Path, HowRead, Wanted], Iterator[Record]]] = {
    ".parquet": parquet_records,
    ".jsonl": json_records,
    ".ndjson": json_records,
    ".json": json_records,
    ".csv": csv_records,
    ".tsv": tsv_records,
}


def read_records(path: Path, wanted: Wanted | None = None, how: HowRead | None = None) -> Iterator[Record]:
    """Yields the records of one file in order.

    Args:
        path: a record file, or the `state.json` of a saved `datasets` split. Capitals in its ending do not matter.
        wanted: the columns to read of tables that can leave some out.
        how: filled in while reading.

    Raises:
        UserError: the file's format is unknown.
    """
    how = how or HowRead(path)
    reader = saved_records if path.name == SAVED_DATASET else READERS.get(path.suffix.lower())
    if reader is None:
        raise UserError(
            f"{path}: no reader for {path.suffix or 'a file without ending'}; allowed: {', '.join(READERS)}"
        )
    for record in reader(path, how, wanted or Wanted()):
        how.rows += 1
        yield record
    how.complete = True
