"""The paper's result tables and what is wrong in them as printed: `paper.yaml` -> `paper_tables`, `print_errors`."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from safer_steer.errors import UserError

AVERAGE = "Avg"
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


def print_errors(table: str) -> list[tuple[str, str]]:
    """Row and message of everything in one of the tables that cannot be right as printed."""
    return [(error["rows"][table], error["said"]) for error in _document()["print_errors"] if table in error["rows"]]
