"""Rows that are set aside come back; none is lost or doubled, whatever is asked for and whenever the run is killed."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safer_steer import aside
from safer_steer.store import read_jsonl, write_jsonl

TASKS = "abcdef"


class Killed(Exception):
    """The process ends."""


def row(task: str) -> dict:
    """A kept row, or for capital letters a reject."""
    return {"id": task, "reason": "r"} if task.isupper() else {"id": f"row {task}", "meta": {"task": task}}


def tasks(path: Path) -> list[str]:
    return [aside.task_of(item) for item in read_jsonl(path)] if path.is_file() else []


@settings(max_examples=60)
@given(
    done=st.sets(st.sampled_from(TASKS + TASKS.upper())),
    choices=st.lists(st.tuples(st.sets(st.sampled_from(TASKS + TASKS.upper())), st.integers(0, 3)), max_size=5),
)
def test_no_row_is_lost_or_doubled(done, choices):
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = Path(folder, "rows.jsonl")
        write_jsonl(path, map(row, sorted(done)))
        for wanted, writes in choices:
            left = iter(range(writes))

            def write(*arguments, left=left):
                if next(left, None) is None:
                    raise Killed
                return write_jsonl(*arguments)

            patch.setattr(aside, "write_jsonl", write)  # the process ends before this write
            try:
                aside.set_aside(path, wanted)
            except Killed:
                patch.setattr(aside, "write_jsonl", write_jsonl)
                assert {*tasks(path), *tasks(path.parent / aside.ASIDE / path.name)} == done
                aside.set_aside(path, wanted)
            assert sorted(tasks(path)) == sorted(done & wanted)
            assert sorted(tasks(path.parent / aside.ASIDE / path.name)) == sorted(done - wanted)
