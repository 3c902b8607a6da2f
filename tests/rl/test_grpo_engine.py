"""Two real GRPO steps (verl, Ray, vLLM on a CPU) of a random-init student against a tutor that sometimes fails."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from miniature.student import build_model, build_processor
from safer_steer.dialogue import Dialogue, Turn
from safer_steer.images import ImageStore
from safer_steer.store import read_jsonl, write_jsonl

pytestmark = pytest.mark.integration
OVERRIDES = (
    "safer_steer.tutor.model=fake-tutor",
    "safer_steer.tutor.max_retries=0",
    "safer_steer.services.teacher.serves=fake-tutor",
    "safer_steer.max_unscored_rate=0.9",
    "safer_steer.turns.max_tokens=8",
    "safer_steer.turns.min_tokens=8",
    "data.train_batch_size=4",
    "data.max_prompt_length=96",
    "data.max_response_length=160",
    "actor_rollout_ref.rollout.max_model_len=256",
    "actor_rollout_ref.rollout.n=2",
    "actor_rollout_ref.actor.ppo_mini_batch_size=2",
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=4",
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=8",
    "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=8",
    "trainer.total_training_steps=2",
)


def make_inputs(root: Path, prompts: int = 6) -> None:
    """A random-init student and a few three-turn prompts below `root`, where the miniature's config looks for them."""
    processor = build_processor()
    model = build_model(processor.tokenizer)
    for part in (model, processor):
        part.save_pretrained(root / "sft" / "checkpoint")
    store, rows = ImageStore(root / "data"), []
    for number in range(prompts):
        picture = store.put(Image.new("RGB", (84, 84), (40 * number, 90, 200)))
        turns = [Turn(user=f"question {turn} about {number} ?") for turn in range(3)]
        row = {"source": "test", "kind": "red_team", "strategy": None, "images": [picture], "turns": turns}
        rows.append(Dialogue(id=f"d{number}", **row))
    write_jsonl(root / "data" / "steer_rl.jsonl", rows)


def run_grpo(root: Path, *overrides: str, fail_share: float = 0.0) -> subprocess.CompletedProcess:
    """Runs the stage's own command on the miniature's config with the fake tutor as its service."""
    service = f"safer_steer.services.teacher.command=[python,tests/rl/fake_tutor.py,'{{port}}','{fail_share}']"
    command = [sys.executable, "-m", "training.grpo.run", "configs/grpo/miniature.yaml", f"root={root}", service]
    return subprocess.run([*command, *OVERRIDES, *overrides], capture_output=True, text=True, check=False)


@pytest.mark.timeout(1800)
def test_two_steps_with_a_tutor_that_sometimes_fails(tmp_path):
    make_inputs(tmp_path)
    answer = run_grpo(tmp_path, fail_share=0.1)
    assert answer.returncode == 0, answer.stderr
    assert "2 steps" in answer.stdout
    folder = tmp_path / "grpo"
    metrics = list(read_jsonl(folder / "metrics.jsonl"))
    assert [row["step"] for row in metrics] == [1, 2]
    for row in metrics:
        assert row["training/rollout_probs_diff_mean"] < 1e-3
        assert math.isfinite(row["actor/grad_norm"])
        assert row["rollout/mask_tokens"] == row["rollout/generated_tokens"]
        assert row["rollout/masked"] == row["rollout/unscored"]
    rows = list(read_jsonl(folder / "trajectories.jsonl", Dialogue))
    assert len(rows) == len({row.id for row in rows}) == 16
    for row in rows:
        scored = [turn.scores is not None for turn in row.turns]
        assert all(scored[:-1])
        assert scored[-1] != row.meta["masked"]
        assert (row.meta["return"] is None) == row.meta["masked"]
    from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder / "checkpoint")
    assert AutoProcessor.from_pretrained(folder / "checkpoint").image_token_id == model.config.image_token_id
    assert json.loads((folder / "run.json").read_text())["status"] == "finished"
    again = run_grpo(tmp_path, fail_share=0.1)
    assert again.returncode == 0
    assert "already finished" in again.stdout


@pytest.mark.timeout(1800)
def test_a_tutor_that_is_down_stops_the_run_with_its_reason(tmp_path):
    make_inputs(tmp_path)
    answer = run_grpo(tmp_path, "safer_steer.max_unscored_rate=0.5", fail_share=1.0)
    assert answer.returncode == 2
    last = answer.stderr.strip().splitlines()[-1]
    assert last.startswith("error: step 1: 100% of 8 trajectories have no score")
    assert "503" in last
    assert not (tmp_path / "grpo" / "checkpoint").exists()
