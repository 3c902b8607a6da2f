"""GRPO with `trainer.nnodes=2`: two raylets on this machine, an FSDP rank and a rollout server on each."""

import json
import math
import subprocess

import pytest

import ray_nodes
from grpo_run import command, make_inputs
from safer_steer.store import read_jsonl

TWO_NODES = (
    "trainer.nnodes=2",
    "trainer.n_gpus_per_node=1",
    "safer_steer.layout.one_machine=true",  # the tutor is this run's service, on loopback
    "trainer.total_training_steps=1",
    "trainer.test_freq=-1",
    "trainer.val_before_train=false",
)


@pytest.mark.nightly
@pytest.mark.integration
@pytest.mark.timeout(3000)
def test_a_step_on_two_nodes(tmp_path):
    make_inputs(tmp_path)
    words = [word for word in command(tmp_path) if not word.startswith("ray_kwargs")]  # the cluster has its sizes
    with ray_nodes.nodes(2, cpus=8, gpus=1) as address:
        words += [*TWO_NODES, f"+ray_kwargs.ray_init.address='{address}'"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        log = (tmp_path / "grpo" / "log" / "verl.log").read_text(errors="replace")
        assert done.returncode == 0, f"{done.stderr}\n{log[-5000:]}"
    [row] = read_jsonl(tmp_path / "grpo" / "metrics.jsonl")
    assert row["training/rollout_probs_diff_mean"] < 1e-3
    assert math.isfinite(row["actor/grad_norm"])
    assert row["tutor/step_calls"] > 0
    ranks = sorted(path.name for path in (tmp_path / "grpo/checkpoints/global_step_1/actor").glob("model_*.pt"))
    assert ranks == ["model_world_size_2_rank_0.pt", "model_world_size_2_rank_1.pt"]
    assert json.loads((tmp_path / "grpo" / "run.json").read_text())["status"] == "finished"
    assert (tmp_path / "grpo" / "checkpoint" / "config.json").is_file()
