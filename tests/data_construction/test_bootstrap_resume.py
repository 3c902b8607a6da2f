"""Stage II killed in the middle of its dialogues: what was answered is not asked for again."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import yaml

from data_construction.config import DataConfig
from data_steps import run_step
from safer_steer.store import read_jsonl

ROOT = Path(__file__).parents[2]
SEEDS, TURNS, CONCURRENCY = 4, 4, 4
AT_A_TURN = ("rewrite", "refusal", "blue", "turn_scores")  # what the double rewrites is more than one question
CALLS = SEEDS * TURNS * len(AT_A_TURN)


def answers(config: DataConfig) -> int:
    """Answers on disk."""
    database = sqlite3.connect(config.folder / "cache.sqlite")
    (number,) = database.execute("SELECT count(*) FROM answers").fetchone()
    database.close()
    return number


def stage_two_requests(double) -> list[str]:
    return [json.dumps(body) for name, body in double.requests if name in AT_A_TURN]


def wait_until_idle(double) -> None:
    seen = -1
    while seen < len(double.requests):
        seen = len(double.requests)
        time.sleep(0.3)


def rows(config: DataConfig) -> list[dict]:
    return sorted(read_jsonl(config.folder / "bootstrapped.jsonl"), key=lambda row: row["id"])


def test_killed_in_mid_dialogue_no_finished_call_is_paid_twice(double, make_seeds, make_config, tmp_path):
    sources = {"train": {"reader": "jsonl", "path": str(make_seeds("train", [f"seed {i}" for i in range(SEEDS)]))}}
    changes = {
        "kinds": ["benign"],
        "turns": {"benign": {"min": TURNS, "max": TURNS}},
        "assemble": {"rl_share": 0.0, "sft": {"mix": {"benign": 1}}},
        "concurrency": CONCURRENCY,
    }
    whole = make_config(sources, root=str(tmp_path / "whole"), **changes)
    run_step("stage1", whole)
    double.requests.clear()
    run_step("stage2", whole)
    assert len(set(stage_two_requests(double))) == len(stage_two_requests(double)) == CALLS

    killed = make_config(sources, root=str(tmp_path / "killed"), steps=["stage2"], **changes)
    run_step("stage1", killed)
    of_stage_one, path = answers(killed), tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(killed.model_dump(mode="json")))
    double.requests.clear()
    double.delay_s = 0.05
    command = [sys.executable, "-m", "data_construction.pipeline", str(path)]
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 90
    while len(double.requests) < CALLS // 2:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    wait_until_idle(double)

    before, paid = stage_two_requests(double), answers(killed) - of_stage_one
    assert 0 < paid <= len(before) <= paid + CONCURRENCY  # only calls in flight are lost
    assert paid > len(rows(killed)) * TURNS * len(AT_A_TURN)  # some dialogue was in its middle

    double.requests.clear()
    double.delay_s = 0.0
    subprocess.run(command, cwd=ROOT, env=os.environ, check=True, capture_output=True, timeout=120)
    after = stage_two_requests(double)
    assert len(after) == CALLS - paid
    assert len(set(before) & set(after)) == len(before) - paid  # just those in flight
    assert rows(killed) == rows(whole)
