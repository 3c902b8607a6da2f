"""Every benchmark at its small size, nightly: they are run by hand otherwise, and follow the code that they measure."""

import json
import subprocess

import pytest


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
