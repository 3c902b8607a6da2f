"""The memory benchmark runs, with the teacher inside and without calls; its claim is made at 100 K rows."""

import pytest

from benchmarks.stage1_memory import main


@pytest.mark.parametrize("answers", ["in-process", "none"])
def test_memory_of_few_rows(capsys, answers):
    assert main(["--rows", "60", "--answers", answers]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].strip().startswith("60 rows: ")
    assert lines[1].startswith("peak memory of 60 rows: ")
