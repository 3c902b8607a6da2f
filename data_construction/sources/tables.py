"""CSV and TSV: a header, then one row per line. All cells are text, an empty one is nothing.

CSV has quotes (RFC 4180), in which a cell may hold delimiters and line breaks; the delimiter is read off the header, or
off Excel's line `sep=;` before it. A quote that is never closed, or closed in the middle of a cell, rejects the row
that it begins in: reading continues at the next line. TSV has no quotes: a cell is what stands between two tabs, as it
is. A header that cannot be read is one rejected row.
"""

import csv
import re
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from data_construction.sources.record import HowRead, Record, Wanted
from data_construction.sources.text_files import bad_bytes, open_text

MAX_FIELD_CHARS = 16 * 1024 * 1024  # of a CSV cell; Python's own limit is 128 KiB
DELIMITERS = (",", ";", "\t", "|")
_SEP = re.compile(r'"?sep=(.)"?', re.IGNORECASE)


class Lines:
    """A file's lines, of which those of a broken row can be taken back."""

    def __init__(self, file: Iterator[str]):
        self._file, self._again, self._taken = file, deque[str](), list[str]()
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._file)
        self._taken.append(line)
        self.number += 1
        return line

    def begin_row(self) -> int:
        """Forgets the lines of the row before; the number of the line that comes next, from 1."""
        self._taken.clear()
        return self.number + 1

    def give_back(self, kept: int) -> None:
        """Gives back all lines of the row but its first `kept`."""
        self.number -= len(self._taken[kept:])
        self._again.extendleft(reversed(self._taken[kept:]))


def csv_records(path: Path, how: HowRead, wanted: Wanted) -> Iterator[Record]:
    """The rows of a CSV file."""
    csv.field_size_limit(MAX_FIELD_CHARS)
    how.format = "CSV"
    with open_text(path, how, newline="") as file:
        lines = Lines(file)
        how.delimiter = _delimiter(lines, wanted)
        yield from _records(_csv_rows(lines, how.delimiter), how, wanted)


def _delimiter(lines: Lines, wanted: Wanted) -> str:
    """The delimiter under which the header has most of the wanted columns, then most columns, then a comma."""
    lines.begin_row()
    header = next((line for line in lines if line.strip()), "")
    if told := _SEP.fullmatch(header.strip("\r\n")):
        return told[1]
    lines.give_back(0)

    def columns(delimiter: str) -> tuple[int, int]:
        names = next(csv.reader([header], delimiter=delimiter), [])
        known = sum(name.strip() in (wanted.names or ()) for name in names)
        return known, len(names)

    return max(DELIMITERS, key=columns)


def _csv_rows(lines: Lines, delimiter: str) -> Iterator[tuple[int, list[str] | str]]:
    rows = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        number = lines.begin_row()
        try:
            values = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            lines.give_back(1)
            yield number, f"not CSV: {error}; a quote inside a quoted cell is written twice"
        else:
            if values:
                yield number, values


def tsv_records(path: Path, how: HowRead, wanted: Wanted) -> Iterator[Record]:
    """The rows of a TSV file."""
    how.format = "TSV"
    with open_text(path, how, newline="\n") as file:
        old_mac = "\r" in file.readline().rstrip("\r\n")  # each line ends in a carriage return alone
    with open_text(path, how, newline="" if old_mac else "\n") as file:
        rows = ((number, line.rstrip("\r\n")) for number, line in enumerate(file, start=1))
        yield from _records(((number, line.split("\t")) for number, line in rows if line), how, wanted)


def _records(rows: Iterator[tuple[int, list[str] | str]], how: HowRead, wanted: Wanted) -> Iterator[Record]:
    number, header = next(rows, (0, []))
    unread = header if isinstance(header, str) else bad_bytes("".join(header), how.encoding)
    if unread:
        yield Record(f"line {number}", {}, f"the header cannot be read, the rest is lost: {unread}")
        return
    how.columns = tuple(name.strip() for name in header)
    doubled = wanted.doubled(how.columns)
    for number, values in rows:
        problem = doubled
        if isinstance(values, str):
            problem, values = values, []
        elif len(values) != len(how.columns):
            problem = f"{len(values)} columns, but the header names {len(how.columns)}"
        if not problem and (found := bad_bytes("".join(values), how.encoding)):
            problem = f"not {found}"
        cells = {} if problem else {name: cell or None for name, cell in zip(how.columns, values, strict=True)}
        yield Record(f"line {number}", cells, problem)
