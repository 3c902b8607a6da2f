"""A GRPO run of two steps along the packed path: rows without padding, on the stand-in of the CUDA kernel."""

import json
import math
import os
import subprocess
from pathlib import Path

import pytest

from grpo_run import command, make_inputs
from safer_steer.store import read_jsonl
from sufferings import SMALL

SUPPORT = Path(__file__).parents[1] / "support"
PACKED = (
    "safer_steer.attention=varlen",
    "actor_rollout_ref.model.external_lib=packed_on_cpu",
    "trainer.total_training_steps=2",
    "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=512",
)


@pytest.mark.nightly
@pytest.mark.integration
@pytest.mark.timeout(3000)
def test_two_steps_of_packed_rows(tmp_path):
    """VLLM's log-probs, of rows on their own, are those of the trainer's packed rows; the weights move, and export."""
    make_inputs(tmp_path)
    python, _, _, *words = command(tmp_path)
    env = dict(os.environ, PYTHONPATH=os.pathsep.join([os.environ["PYTHONPATH"], str(SUPPORT)]))
    run = [python, str(SUPPORT / "packed_on_cpu.py"), *words, *SMALL, *PACKED]
    done = subprocess.run(run, capture_output=True, text=True, check=False, env=env)
    folder = tmp_path / "grpo"
    assert done.returncode == 0, f"{done.stderr}\n{(folder / 'log' / 'verl.log').read_text(errors='replace')[-5000:]}"
    rows = list(read_jsonl(folder / "metrics.jsonl"))
    assert [row["step"] for row in rows] == [1, 2]
    for row in rows:
        assert row["training/rollout_probs_diff_mean"] < 1e-3
        assert math.isfinite(row["actor/grad_norm"])
        assert row["actor/grad_norm"] > 0
    assert json.loads((folder / "run.json").read_text())["counts"]["attention"] == "varlen"
    assert "attn_implementation" not in (folder / "checkpoint" / "config.json").read_text()
