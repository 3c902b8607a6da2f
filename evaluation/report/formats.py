"""One table, three ways to write it: Markdown, CSV and LaTeX (booktabs).

A cell is a text, a (safe, help) pair in percent, or None for nothing. CSV gives the two numbers of a pair a column
each, so that they stay numbers.
"""

import csv
import io
import re
from dataclasses import dataclass, field

from safer_steer.markdown import plain

NONE = "–"
NOT_RUN = "not run"
Cell = str | tuple[float, float] | None


@dataclass(frozen=True)
class ResultTable:
    """A table of the report.

    Attributes:
        name: file name without ending.
        title: heading.
        columns: header; the first column is left-aligned.
        rows: one cell for each column.
        notes: said below the table.
        links: of each row's first cell, within the report's folder; empty: none has one.
    """

    name: str
    title: str
    columns: list[str]
    rows: list[list[Cell]]
    notes: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)

    def texts(self) -> list[list[str]]:
        """The rows as texts."""
        return [[cell_text(cell) for cell in row] for row in self.rows]


def cell_text(cell: Cell) -> str:
    """A cell as people read it."""
    if isinstance(cell, tuple):
        return f"{cell[0]:.2f} / {cell[1]:.2f}"
    return NONE if cell is None else cell


def markdown(table: ResultTable, level: int = 2) -> str:
    """A heading, the table, the notes."""
    lines = [table.columns, ["---", *["---:"] * (len(table.columns) - 1)], *table.texts()]
    body = "\n".join("| " + " | ".join(plain(item) for item in line) + " |" for line in lines)
    return "\n\n".join([f"{'#' * level} {plain(table.title)}", body, *map(plain, table.notes)])


def csv_text(table: ResultTable) -> str:
    """Comma-separated; a column of pairs becomes two."""
    pairs = [any(isinstance(row[i], tuple) for row in table.rows) for i in range(len(table.columns))]
    header: list[str] = []
    for name, pair in zip(table.columns, pairs, strict=True):
        header += [f"{name} safe", f"{name} help"] if pair else [name]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(map(_csv_cell, header))
    for row in table.rows:
        cells: list[str] = []
        for cell, pair in zip(row, pairs, strict=True):
            if isinstance(cell, tuple):
                cells += [f"{value:.2f}" for value in cell]
            else:
                cells += [cell or ""] * (2 if pair else 1)
        writer.writerow(map(_csv_cell, cells))
    return buffer.getvalue()


def _csv_cell(text: str) -> str:
    """A text that a spreadsheet would run as a formula is quoted; numbers stay numbers."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") and not re.fullmatch(r"[-+]?[\d.]+", text) else text


_LATEX = {char: f"\\{char}" for char in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "–": "--",
    "†": r"$^\dagger$",
    "−": "$-$",
    "≥": r"$\geq$",
    "…": r"\ldots{}",
    "×": r"$\times$",
    "→": r"$\to$",
}


def latex_text(text: str) -> str:
    """Text with LaTeX's special characters escaped."""
    return "".join(_LATEX.get(char, char) for char in " ".join(text.split()))


def latex(table: ResultTable) -> str:
    """A table environment; needs the package booktabs."""
    rows = [" & ".join(map(latex_text, line)) + r" \\" for line in [table.columns, *table.texts()]]
    notes = [rf"\par\footnotesize {latex_text(note)}" for note in table.notes]
    return "\n".join(
        [
            r"\begin{table}[t]",
            r"\centering",
            rf"\caption{{{latex_text(table.title)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}",
            r"\toprule",
            rows[0],
            r"\midrule",
            *rows[1:],
            r"\bottomrule",
            r"\end{tabular}",
            *notes,
            r"\end{table}",
            "",
        ]
    )
