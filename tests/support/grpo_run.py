"""A GRPO run on the miniature's real engines that the tests start: its inputs and its command."""

import math
import sys
from pathlib import Path

from PIL import Image

from miniature.student import build_model, build_processor
from safer_steer.dialogue import Dialogue, Turn
from safer_steer.images import ImageStore
from safer_steer.store import write_jsonl
from safer_steer.vlm import Family
from tiny_families import model_of, processor_of

SEED = 7
OVERRIDES = (
    "safer_steer.tutor.model=fake-tutor",
    "safer_steer.tutor.max_retries=0",
    "safer_steer.services.teacher.serves=fake-tutor",
    "safer_steer.max_unscored_rate=0.5",
    "safer_steer.turns.max_tokens=8",
    "safer_steer.turns.min_tokens=8",
    "data.train_batch_size=4",
    "data.max_prompt_length=96",
    "data.max_response_length=160",
    "actor_rollout_ref.rollout.max_model_len=256",
    "actor_rollout_ref.rollout.n=2",
    "actor_rollout_ref.actor.ppo_mini_batch_size=2",
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=2",
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=4",
    "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=4",
    "actor_rollout_ref.rollout.agent.num_workers=2",
    "trainer.n_gpus_per_node=2",  # two ranks, so two rollout replicas of one rank each: data parallel
    "ray_kwargs.ray_init.num_gpus=2",
    "ray_kwargs.ray_init.num_cpus=8",
    "trainer.total_training_steps=3",
    "trainer.save_freq=1",
    "trainer.test_freq=3",
    "trainer.val_before_train=true",
    "trainer.logger=[tensorboard]",
    f"data.seed={SEED}",
)


REWARD = """
def reward(turn):
    assert len(turn.pictures) == 1 and turn.kind == "red_team"
    return 2 * turn.scores.safety + len(turn.history) / 10
"""


def make_inputs(root: Path, prompts: int = 6, family: Family | None = None) -> None:
    """A random-init student, the miniature's or one of a family, and a few three-turn prompts below `root`, where the
    miniature's config looks for them, and a reward of the user's.
    """
    (root / "mine.py").write_text(REWARD)
    processor = processor_of(family, min_pixels=4 * family.picture_unit**2) if family else build_processor()
    model = model_of(family, processor.tokenizer) if family else build_model(processor.tokenizer)
    for part in (model, processor):
        part.save_pretrained(root / "sft" / "checkpoint")
    store, rows = ImageStore(root / "data"), []
    for number in range(prompts):
        picture = store.put(Image.new("RGB", (84, 84), (40 * number, 90, 200)))
        turns = [Turn(user=f"question {turn} about {number} ?") for turn in range(3)]
        row = {"source": "test", "kind": "red_team", "strategy": None, "images": [picture], "turns": turns}
        rows.append(Dialogue(id=f"d{number}", **row))
    write_jsonl(root / "data" / "steer_rl.jsonl", rows)


def command(root: Path, down_after: float = math.inf) -> list[str]:
    """The stage's own command on the miniature's config with the fake tutor as its service."""
    service = (
        f"safer_steer.services.teacher.command=[python,tests/support/fake_tutor.py,'{{port}}','about 0','{down_after}']"
    )
    held_out = f"safer_steer.data.validation=[{root}/data/steer_rl.jsonl]"
    stage = [sys.executable, "-m", "training.grpo.run", "configs/grpo/miniature.yaml", f"root={root}", service]
    return [*stage, held_out, f"safer_steer.reward={root}/mine.py:reward", *OVERRIDES]
