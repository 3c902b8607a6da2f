"""SFT on its real trainer, interrupted, on a full disk and killed: the run that goes on ends like an untouched one."""

import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from safer_steer.cli import exit_code
from safer_steer.store import read_jsonl
from training.sft.log import LogCallback
from training.sft.run import main

pytestmark = pytest.mark.integration


def test_one_run_through_all_faults_equals_an_untouched_one(
    untouched, config_for, weights, capsys, monkeypatch, tmp_path
):
    whole, config = untouched, config_for("troubled", "training.save_every=1")
    folder, handlers = Path(config.output), [(n, signal.getsignal(n)) for n in (signal.SIGINT, signal.SIGTERM)]

    # Ctrl-C after the second step. A shell starts its background jobs, such as this test, with Ctrl-C ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    real = LogCallback.on_step_end

    def press_ctrl_c(self, args, state, control, **rest):
        real(self, args, state, control, **rest)
        if state.global_step == 2:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(LogCallback, "on_step_end", press_ctrl_c)
    assert exit_code(lambda: main(config)) == 130
    assert "interrupted; run the same command again" in capsys.readouterr().err
    monkeypatch.setattr(LogCallback, "on_step_end", real)
    for number, handler in handlers:
        signal.signal(number, handler)

    # No room for the next checkpoint.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        assert exit_code(lambda: main(config)) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(*handlers[1])
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: the disk is full"), error
    assert "run the same command again" in error

    # `kill -9` at a random moment of the training.
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    command = [sys.executable, "-m", "training.sft.run", str(path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    moment = random.Random(5).randint(3, 6)
    while not (folder / "trainer" / f"checkpoint-{moment}").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.005)
    process.kill()
    process.communicate()

    assert main(config) == 0
    assert [row["step"] for row in read_jsonl(folder / "log.jsonl")] == list(range(1, 9))
    mine, theirs = weights(folder / "checkpoint"), weights(Path(whole.output) / "checkpoint")
    assert max((mine[name] - theirs[name]).abs().max().item() for name in theirs) < 1e-6
    losses = [[row["loss"] for row in read_jsonl(place / "log.jsonl")] for place in (folder, Path(whole.output))]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
