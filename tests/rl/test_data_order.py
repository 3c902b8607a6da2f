"""The data order over a resume, with verl's own sampler, loader and fetch (case 18: 4 rows, batch 2, saved at 2)."""

from types import SimpleNamespace

import numpy as np
import pytest
from omegaconf import OmegaConf

pytestmark = pytest.mark.integration


class Feed:
    """What a trainer holds of its data: verl's loader, and verl's method that takes a batch from it."""

    def __init__(self, prompts: int, batch: int, seed: int):
        from torchdata.stateful_dataloader import StatefulDataLoader
        from verl.trainer.ppo.utils import create_rl_sampler

        rows = range(prompts)
        sampler = create_rl_sampler(OmegaConf.create({"shuffle": True, "seed": seed}), rows)
        self.trainer = SimpleNamespace(
            train_dataloader=StatefulDataLoader(
                rows, batch_size=batch, drop_last=True, sampler=sampler, collate_fn=self.collate
            ),
            train_dataloader_it=None,
        )

    @staticmethod
    def collate(rows: list[int]) -> dict:
        return {"raw_prompt": np.array([f"d{row}" for row in rows], dtype=object)}

    def take(self, steps: int) -> list[list[str]]:
        from verl.trainer.ppo.v1.trainer_base import PPOTrainer

        return [list(PPOTrainer._fetch_one_gen_batch(self.trainer)["raw_prompt"]) for _ in range(steps)]


@pytest.mark.parametrize(("prompts", "batch"), [(4, 2), (6, 4), (7, 3)])
@pytest.mark.parametrize("saved_at", [1, 2, 3, 4])
def test_a_resumed_run_sees_the_batches_that_an_uninterrupted_one_sees(prompts, batch, saved_at):
    whole = Feed(prompts, batch, seed=7).take(6)
    first = Feed(prompts, batch, seed=7)
    seen = first.take(saved_at)
    resumed = Feed(prompts, batch, seed=7)
    resumed.trainer.train_dataloader.load_state_dict(first.trainer.train_dataloader.state_dict())
    assert seen + resumed.take(6 - saved_at) == whole
    assert whole != Feed(prompts, batch, seed=8).take(6)
