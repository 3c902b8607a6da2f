"""SFT never hangs: a rank that is killed is named, one that is stopped ends the run; the same command resumes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from safer_steer.config import resolved_yaml
from safer_steer.store import read_jsonl

TWO_RANKS = (
    "training.per_device_batch_size=1",
    "training.gradient_accumulation=2",
    "training.processes=2",
    "training.epochs=5",
    "training.save_every=5",
    "training.deepspeed=configs/deepspeed/zero2.yaml",
)
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def ranks(launcher: subprocess.Popen) -> dict[int, psutil.Process]:
    found = {}
    for process in psutil.Process(launcher.pid).children():
        try:
            found[int(process.environ()["RANK"])] = process
        except (psutil.Error, KeyError):
            continue
    return found


def steps(folder: Path) -> int:
    path = folder / "log.jsonl"
    return len(list(read_jsonl(path))) if path.is_file() else 0


@pytest.mark.nightly
@pytest.mark.integration
@pytest.mark.timeout(6000)
def test_a_rank_that_is_killed_or_stopped_ends_the_run_with_its_name(config_for, tmp_path):
    config = config_for("watch", *TWO_RANKS, "training.stall_s=40")
    folder, path = Path(config.output), tmp_path / "sft.yaml"
    path.write_text(resolved_yaml(config), encoding="utf-8")
    for number, said in (
        (signal.SIGKILL, "rank 1 (process {}) vanished without a word, as one that is killed (signal 9), mostly"),
        (signal.SIGSTOP, "nothing has happened for 40 s (training.stall_s)"),
    ):
        before = steps(folder)
        with (tmp_path / "said.txt").open("w") as file:
            run = subprocess.Popen([*LAUNCH, "-m", "training.sft.run", str(path)], stderr=file, env=os.environ)
        while steps(folder) < before + 3 and run.poll() is None:
            time.sleep(0.1)
        assert run.poll() is None, (tmp_path / "said.txt").read_text()
        victim = ranks(run)[1]
        victim.send_signal(number)
        run.wait()
        told = (tmp_path / "said.txt").read_text()
        assert run.returncode != 0
        errors = [line for line in told.splitlines() if line.startswith("error: ")]
        assert any(said.format(victim.pid) in line for line in errors), told[-3000:]
        assert all("run the same command again" in line for line in errors)
        if number == signal.SIGSTOP:
            assert f"stopped by a signal: rank 1 (process {victim.pid})" in told
    last = subprocess.run([*LAUNCH, "-m", "training.sft.run", str(path)], capture_output=True, text=True, check=False)
    assert last.returncode == 0, last.stderr[-3000:]
    assert [row["step"] for row in read_jsonl(folder / "log.jsonl")] == list(range(1, 21))
