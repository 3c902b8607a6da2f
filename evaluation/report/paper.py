"""The paper's result tables, and a check of what was printed: `paper.yaml` -> `paper_tables` -> `print_errors`.

Two kinds of print error are found: an Avg. that is not the mean of its row, and one system with different numbers for
the same column in different tables. They are flagged in our tables, never corrected.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from evaluation.multi_turn.aggregate import plain_mean
from safer_steer.errors import UserError

AVERAGE = "Avg"
ROUNDING = 0.011  # two printed decimals, each rounded
Pair = tuple[float, float]


@dataclass(frozen=True)
class PaperTable:
    """A result table as printed: row -> column -> (safe, help) in percent, or a plain number in Table 1."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: dict[str, dict[str, Pair | float]]

    @property
    def label(self) -> str:
        """`Table 3: ...`."""
        return f"Table {self.name.removeprefix('table')}: {self.title}"


@dataclass(frozen=True)
class PrintError:
    """Something in the paper's tables that cannot be right as printed."""

    table: str
    row: str
    message: str


@cache
def _document() -> dict[str, Any]:
    return yaml.safe_load(Path(__file__).with_name("paper.yaml").read_text(encoding="utf-8"))


@cache
def paper_tables() -> dict[str, PaperTable]:
    """All tables by name, in the paper's order."""
    tables = {}
    for name in sorted(key for key in _document() if key.startswith("table")):
        data = _document()[name]
        rows = {
            row: {
                column: tuple(cell) if isinstance(cell, list) else cell
                for column, cell in zip(data["columns"], cells, strict=True)
            }
            for row, cells in data["rows"].items()
        }
        tables[name] = PaperTable(name, data["title"], tuple(data["columns"]), rows)
    return tables


def system(row: str) -> str:
    """The system that a row stands for: one name for rows of different tables that are the same system.

    Raises:
        UserError: no table has such a row.
    """
    for name, others in _document()["same_system"].items():
        if row == name or row in others:
            return name
    known = sorted({name for key, table in paper_tables().items() if key != "table1" for name in table.rows})
    if row not in known:
        raise UserError(f"report.paper_rows: the paper has no row {row!r}; it has {', '.join(known)}")
    return row


def row_average(cells: dict[str, Pair]) -> Pair:
    """The Avg. of a row, from its other columns."""
    pairs = [pair for column, pair in cells.items() if column != AVERAGE]
    return plain_mean(safe for safe, _ in pairs), plain_mean(helpful for _, helpful in pairs)


@cache
def print_errors() -> tuple[PrintError, ...]:
    """All print errors of the tables, table by table."""
    return (*_wrong_averages(), *_different_numbers())


def _wrong_averages() -> list[PrintError]:
    found = []
    for name, table in paper_tables().items():
        if AVERAGE not in table.columns or len(table.columns) < 3:
            continue
        for row, cells in table.rows.items():
            right, printed = row_average(cells), cells[AVERAGE]
            if max(abs(x - y) for x, y in zip(right, printed, strict=True)) > ROUNDING:
                message = f"Avg. is printed as {pair_text(printed)}; the row's columns average {pair_text(right)}"
                found.append(PrintError(name, row, message))
    return found


def _different_numbers() -> list[PrintError]:
    seen: dict[tuple[str, str], dict[Pair, list[tuple[str, str]]]] = {}
    for name, table in paper_tables().items():
        if name in ("table1", "table2"):  # Table 2 has benchmarks of its own
            continue
        for row, cells in table.rows.items():
            for column, pair in cells.items():
                seen.setdefault((system(row), column), {}).setdefault(pair, []).append((name, row))
    found = []
    for (_, column), values in seen.items():
        if len(values) > 1:
            parts = [
                f"{pair_text(pair)} in {'table' if len(places) == 1 else 'tables'} "
                + ", ".join(name.removeprefix("table") for name, _ in places)
                for pair, places in values.items()
            ]
            for name, row in (place for places in values.values() for place in places):
                found.append(PrintError(name, row, f"{column} of the same system reads {' and '.join(parts)}"))
    return sorted(found, key=lambda error: error.table)


def pair_text(pair: Pair) -> str:
    """`safe / help`, two decimals as printed."""
    return f"{pair[0]:.2f} / {pair[1]:.2f}"
