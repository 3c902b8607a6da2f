"""The fault matrix as a table: tests/faults/matrix.yaml -> docs/reliability.md, between its two marks.

python tests/faults/table.py
"""

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
MATRIX, PAGE = Path(__file__).with_name("matrix.yaml"), ROOT / "docs" / "reliability.md"
STAGES = {
    "data_construction": "data construction",
    "sft": "SFT",
    "grpo": "GRPO",
    "evaluation": "evaluation",
    "shared": "shared",
}
BEGIN, END = "<!-- made by `python tests/faults/table.py`: do not edit -->", "<!-- end of what is made -->"


def read_matrix() -> dict[str, Any]:
    """Fault -> {"title", "stages": stage -> {"promise", "tests"} or {"not_applicable"}}."""
    return yaml.safe_load(MATRIX.read_text(encoding="utf-8"))


def table(matrix: dict[str, Any]) -> str:
    """The matrix in Markdown: a section for each fault, a row for each stage."""
    parts = []
    for fault in matrix.values():
        parts.append(f"### {fault['title']}\n\n| stage | what is promised | shown by |\n|---|---|---|")
        parts += [f"| {STAGES[stage]} | {' | '.join(_cells(row))} |" for stage, row in fault["stages"].items()]
        parts.append("")
    return "\n".join(parts)


def _cells(row: dict[str, Any]) -> tuple[str, str]:
    if "not_applicable" in row:
        return f"– ({row['not_applicable']})", "–"
    tests = (name.partition("::") for name in row["tests"])
    return row["promise"], "<br>".join(f"[`{test}`](../{file})" for file, _, test in tests)


def page(old: str) -> str:
    """The page with the table put in anew; the text around it stays."""
    head, _, rest = old.partition(BEGIN)
    return f"{head}{BEGIN}\n\n{table(read_matrix())}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
