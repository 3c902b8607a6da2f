"""The benchmarks' common form: ratios, targets, one table of all; how fast things are is for them to say."""

import json
import re
from pathlib import Path

import pytest

from benchmarks.figures import Figure, write_figures
from benchmarks.summary import main

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    ("figure", "ratio", "met"),
    [
        (Figure("a", "u", 9.0, "b", 10.0, 0.9), 0.9, True),
        (Figure("a", "u", 8.9, "b", 10.0, 0.9), 0.89, False),
        (Figure("a", "u", 13.0, "b", 10.0, 1.2, "lower"), 1.3, False),
        (Figure("a", "u", 12.0, "b", 10.0, 1.2, "lower"), 1.2, True),
        (Figure("a", "u", 5.0, "b", 10.0), 0.5, None),
        (Figure("a", "u", 5.0, "b", 10.0, 0.8, ratio=0.81), 0.81, True),
        (Figure("a", "u", 0, "b", 0, 1.0), 1.0, True),
        (Figure("a", "u", 3, "b", 0, 1.0), 0.0, False),
    ],
)
def test_a_figure_has_a_ratio_and_meets_its_target_or_misses_it(figure, ratio, met):
    assert figure.as_dict()["ratio"] == pytest.approx(ratio)
    assert figure.met is met


def test_one_table_of_all_figures(tmp_path, capsys):
    good, bad = Figure("rate", "calls/s", 1177.4, "bare aiohttp", 1160, 0.8), Figure("x", "s", 2, "y", 1, 1.5, "lower")
    assert write_figures(tmp_path / "one.json", "one", [good], settings={"scale": 1.0}, details=[1]) == 0
    assert write_figures(tmp_path / "two.json", "two", [bad], settings={}) == 1
    assert main([str(tmp_path), "--failed", "three", "--skipped"]) == 1
    whole = json.loads((tmp_path / "all.json").read_text())
    assert (whole["missed"], whole["failed"], whole["skipped"]) == (1, ["three"], [])
    assert whole["machine"].keys() >= {"cores", "ram_gib", "versions", "commit"}
    assert [record["benchmark"] for record in whole["benchmarks"]] == ["one", "two"]
    table = (tmp_path / "all.md").read_text()
    assert capsys.readouterr().out == table
    assert "| one | rate | 1,177 | bare aiohttp | 1,160 | calls/s | 1.01 | ≥ 0.8 | yes |" in table
    assert "| two | x | 2 | y | 1 | s | 2.00 | ≤ 1.5 | **no** |" in table
    assert "- three: failed" in table
    (tmp_path / "two.json").unlink()
    assert main([str(tmp_path)]) == 0  # `all.json` is no benchmark of its own
    assert main([str(tmp_path / "absent")]) == 2


def test_run_all_runs_every_benchmark():
    script = (ROOT / "benchmarks" / "run_all.sh").read_text(encoding="utf-8")
    measured = set(re.findall(r"measure (\w+) \"", script))
    by_hand = ("figures.py", "faulty_provider.py")  # ten thousand calls, and eight kills
    files = [path for path in (ROOT / "benchmarks").glob("*.py") if path.name not in by_hand]
    assert measured == {path.stem for path in files if "write_figures(" in path.read_text(encoding="utf-8")}
    assert len(measured) >= 7
