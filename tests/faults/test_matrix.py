"""The fault matrix is whole: every stage meets every fault, every named test exists, and the page is what it makes."""

import ast
import runpy
from functools import cache
from pathlib import Path

import pytest

TABLE = runpy.run_path(str(Path(__file__).with_name("table.py")))
ROOT, MATRIX = TABLE["ROOT"], TABLE["read_matrix"]()
CELLS = [(fault, stage, row) for fault, data in MATRIX.items() for stage, row in data["stages"].items()]


@cache
def names_of_tests(file: str) -> set[str]:
    """The tests of a file that pytest collects; those that are always skipped are left out."""
    functions = [node for node in ast.parse((ROOT / file).read_text(encoding="utf-8")).body if hasattr(node, "name")]
    marks = {node.name: {ast.unparse(mark) for mark in node.decorator_list} for node in functions}
    return {
        name
        for name, found in marks.items()
        if name.startswith("test_") and not any(word in mark for mark in found for word in ("mark.skip", "mark.xfail"))
    }


@pytest.mark.parametrize("fault", MATRIX)
def test_every_stage_meets_the_fault(fault):
    assert list(MATRIX[fault]["stages"]) == list(TABLE["STAGES"])


@pytest.mark.parametrize(("fault", "stage", "row"), CELLS, ids=[f"{fault}-{stage}" for fault, stage, _ in CELLS])
def test_every_promise_is_shown(fault, stage, row):
    assert row.keys() in ({"promise", "tests"}, {"not_applicable"})
    assert row.get("tests") != []
    for name in row.get("tests", []):
        file, _, test = name.partition("::")
        assert test in names_of_tests(file), f"{name}: no such test"


def test_the_page_is_what_the_matrix_makes():
    text = TABLE["PAGE"].read_text(encoding="utf-8")
    assert text == TABLE["page"](text), "run: python tests/faults/table.py"
    assert text.count(TABLE["BEGIN"]) == text.count(TABLE["END"]) == 1
