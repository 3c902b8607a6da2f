import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import yaml

from data_construction.pipeline import main
from safer_steer.store import read_jsonl

ROOT = Path(__file__).parents[2]
FILES = ("dialogues.jsonl", "rejects.jsonl", "bootstrapped.jsonl", "steer_sft.jsonl", "steer_rl.jsonl")


def command(*arguments: str) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'verl'}"}
    return subprocess.Popen(
        [sys.executable, "-m", "data_construction.pipeline", *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def by_id(folder: Path, name: str) -> list[dict]:
    return sorted(read_jsonl(folder / name), key=lambda row: row["id"])


def test_killed_anywhere_and_resumed_equals_an_uninterrupted_run(double, make_seeds, make_config, tmp_path):
    sources = {"train": {"reader": "jsonl", "path": str(make_seeds("train", [f"weak {i}" for i in range(8)]))}}
    splits = {"sft": {"size": 3}, "rl": {"size": 3}, "bench": {"size": 0}}
    whole = make_config(sources, assemble=splits, root=str(tmp_path / "whole"))
    main(whole)

    killed = make_config(sources, assemble=splits, root=str(tmp_path / "killed"))
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(killed.model_dump(mode="json")))
    double.delay_s = 0.02
    for name, rows in (("candidates.jsonl", 3), ("bootstrapped.jsonl", 2)):
        process = command(str(path))
        file, deadline = killed.folder / name, time.monotonic() + 90
        while not (file.exists() and file.read_bytes().count(b"\n") >= rows):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        with file.open("ab") as tail:
            tail.write(b'{"id": "torn')
    double.delay_s = 0.0
    process = command(str(path))
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "assemble: 3 sft, 3 rl, 0 bench" in output
    for name in FILES:
        assert by_id(killed.folder, name) == by_id(whole.folder, name), name
        ids = [row["id"] for row in read_jsonl(killed.folder / name)]
        assert len(ids) == len(set(ids))


def test_missing_seeds_end_in_one_line_and_code_2(tmp_path):
    path = str(ROOT / "configs" / "data_construction" / "miniature.yaml")
    process = command(path, f"root={tmp_path}", "kinds=[benign]")
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors.count("\n")) == (2, 1)
    assert "seeds not found" in errors


def test_run_json_has_counts_and_usage(make_seeds, make_config):
    sources = {"train": {"reader": "jsonl", "path": str(make_seeds("train", ["a"]))}}
    splits = {"rl_share": 0, "rl": {"size": 0}, "bench": {"size": 0}}
    config = make_config(sources, kinds=["benign"], assemble=splits)
    main(config)
    record = json.loads((config.folder / "run.stage1.json").read_text())
    assert record["usage"]["generator"]["calls"] == 2
    assert set(record["facts"]["prompts"]) == {"probe", "expand", "forensics", "intent", "plan", "leak", "refusal"}
    assert json.loads((config.folder / "run.json").read_text())["status"] == "finished"
