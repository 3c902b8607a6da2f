"""Two ranks on a CPU (gloo), picture and text-only rows mixed: the losses of one rank over 20 steps, and no hang."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from safer_steer.config import resolved_yaml
from safer_steer.store import read_jsonl
from training.sft.run import main

pytestmark = pytest.mark.integration
STEPS = 20
# One row a forward pass: while one rank has a picture, the other has none.
TWO_RANKS = (
    "training.per_device_batch_size=1",
    "training.gradient_accumulation=2",
    "training.processes=2",
    "training.epochs=5",
    "training.save_every=epoch",
    "training.keep_checkpoints=1",
)
ONE_RANK = (*TWO_RANKS, "training.processes=1", "training.per_device_batch_size=4", "training.gradient_accumulation=1")


def losses(folder: Path) -> list[float]:
    rows = list(read_jsonl(folder / "log.jsonl"))
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    return [row["loss"] for row in rows]


@pytest.fixture(scope="module")
def one_rank(config_for):
    config = config_for("one", *ONE_RANK)
    main(config)
    return Path(config.output)


@pytest.mark.parametrize("kind", ["zero2", "zero3"])
def test_two_ranks_have_the_losses_of_one(kind, one_rank, config_for, weights):
    config = config_for(kind, *TWO_RANKS, f"training.deepspeed=configs/deepspeed/{kind}.yaml")
    path = one_rank.with_name(f"{kind}.yaml")
    path.write_text(resolved_yaml(config), encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    ended = subprocess.run(
        [*command, "-m", "training.sft.run", str(path)], capture_output=True, text=True, timeout=400, env=os.environ
    )
    assert ended.returncode == 0, (ended.stdout + ended.stderr)[-3000:]
    folder = Path(config.output)
    assert losses(folder) == pytest.approx(losses(one_rank), abs=1e-4)
    ours, theirs = weights(folder / "checkpoint"), weights(one_rank / "checkpoint")
    assert ours.keys() == theirs.keys()
    assert all(ours[name].shape == theirs[name].shape for name in ours), "whole weights, not this rank's part"
    assert max((ours[name] - theirs[name]).abs().max().item() for name in ours) < 1e-3
