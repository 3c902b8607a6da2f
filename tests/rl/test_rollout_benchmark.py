"""The rollout benchmark at a small size: both loops play everything, and what it reports fits together."""

import json
import subprocess
import sys

import pytest


@pytest.mark.integration
def test_both_loops_play_every_trajectory_to_the_end(tmp_path):
    report = tmp_path / "rollout.json"
    command = [sys.executable, "benchmarks/rollout.py", "--trajectories", "4", "--turns", "2", "--median", "0.05"]
    answer = subprocess.run([*command, "--out", str(report)], capture_output=True, text=True, check=False)
    written = json.loads(report.read_text())
    missed = [figure for figure in written["figures"] if figure["met"] is False]  # as sizes this small may
    assert answer.returncode == bool(missed), answer.stderr
    figures = written["details"]
    assert json.loads(answer.stdout) == figures
    assert [item["against"] for item in written["figures"]] == ["lock-step loop", "waits alone"]
    assert written["figures"][0]["ratio"] == figures["speed_up"]
    assert (figures["trajectories"], figures["turns"]) == (4, 2)
    # A loop cannot be faster than the waits of its slowest trajectory.
    assert figures["asynchronous_s"] >= figures["bound_s"] > 0
    assert figures["lock_step_s"] >= figures["bound_s"]
