"""Every benchmark at its small size, nightly: they are run by hand otherwise, and follow the code that they measure.

And the table of their figures.
"""

import json
import subprocess

import pytest

from benchmarks import summary


@pytest.mark.nightly
@pytest.mark.integration
@pytest.mark.timeout(3600)
def test_every_benchmark_runs(tmp_path):
    command = ["bash", "benchmarks/run_all.sh", "--quick", "--out", str(tmp_path)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)  # 1 where a target is missed, too
    told = found.stdout[-3000:] + found.stderr[-3000:]
    assert (tmp_path / "all.json").is_file(), told
    assert ": failed" not in (tmp_path / "all.md").read_text(encoding="utf-8"), told
    assert json.loads((tmp_path / "all.json").read_text(encoding="utf-8")), told


def test_the_table_has_the_named_benchmarks_alone(tmp_path, capsys):
    """Other files of the folder are the user's."""
    record = {"benchmark": "ours", "figures": [], "settings": {}, "load_average": [0.0]}
    (tmp_path / "rollout.json").write_text(json.dumps(record), encoding="utf-8")
    (tmp_path / "mine.json").write_text("not ours", encoding="utf-8")
    assert summary.main([str(tmp_path), "llm_client", "rollout", "--failed", "llm_client", "--skipped"]) == 1
    assert "- ours: no settings" in capsys.readouterr().out
    assert summary.main([str(tmp_path), "llm_client"]) == 2
