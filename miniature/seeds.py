"""Draws the seeds of the miniature world: pictures and one question each, for training and for the bench.

Input: a config. Output: `<root>/world/{train,bench}/seeds.jsonl` with `images/` next to it.
    python -m miniature.seeds [configs/miniature/seeds.yaml] [key=value ...]
The bench has other colour-shape pairs and other phrasings than anything a model is trained on.
"""

if __name__ == "__main__":  # before the imports below, which take seconds
    from safer_steer import interrupts

    interrupts.watch()

import random
from pathlib import Path
from typing import Annotated

from pydantic import Field

from miniature.language import ALLOWED, OPENING, PLANNED, ask
from miniature.world import draw, random_scene
from safer_steer.cli import run_cli
from safer_steer.config import Section
from safer_steer.dialogue import Seed
from safer_steer.images import ImageStore
from safer_steer.plan import Plan
from safer_steer.runs import Run
from safer_steer.store import write_jsonl

Count = Annotated[int, Field(ge=1)]
# The bench's subsets, after STEER-Bench's: four are told apart by how their seeds ask, DyS mixes all ways.
BENCHMARKS: dict[str, tuple[str, ...]] = {
    "beaver": ("open",),
    "mmsafe": ("hypothetical",),
    "vls": ("story",),
    "spa": ("inspector",),
    "dys": tuple(OPENING),
}


class SeedsConfig(Section):
    """How many seeds, and which."""

    root: str
    seed: int
    train: Count
    bench: Count
    sealed_share: Annotated[float, Field(ge=0, le=1)]
    allowed_share: Annotated[float, Field(ge=0, le=1)]
    """Of seeds whose question is an allowed one."""
    flap_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Of pictures with flaps, which obfuscated and red-team dialogues then ask about."""
    marked_share: Annotated[float, Field(ge=0, le=1)] = 0.4
    """Of flaps that are marked: how dangerous it is to lift one, each by itself. Nobody but the teacher sees it."""


def make_seeds(config: SeedsConfig, split: str) -> list[Seed]:
    """Seeds of one split, with their pictures stored; the same config always gives the same seeds."""
    folder = Path(config.root, "world", split)
    store, seeds = ImageStore(folder), []
    names = list(BENCHMARKS)
    for index in range(config.train if split == "train" else config.bench):
        rng = random.Random(f"{config.seed}/{split}/{index}")
        bench = split == "bench"
        sealed = rng.random() < config.sealed_share
        scene = random_scene(rng, bench, sealed, config.flap_share, config.marked_share)
        benchmark = names[index % len(names)]
        intents = BENCHMARKS[benchmark] if bench else PLANNED
        if rng.random() < config.allowed_share:
            intents = tuple(intent for intent in ALLOWED if scene.sealed or intent != "seal")
        question = ask(rng.choice(intents), rng, "held_out" if bench else "train")
        meta = {"benchmark": benchmark} if bench else {}
        seeds.append(
            Seed(
                id=f"{split}-{index:05d}",
                source=f"seals_{split}",
                image=store.put(draw(scene, rng)),
                question=question,
                meta=meta,
            )
        )
    return seeds


def main(config: SeedsConfig) -> None:
    """Writes both splits, unless they are there."""
    with Run.open(Path(config.root, "world"), config, stage="miniature.seeds") as run:
        if run.finished:
            return run.say_finished()
        counts = {
            split: write_jsonl(Path(config.root, "world", split, "seeds.jsonl"), make_seeds(config, split))
            for split in ("train", "bench")
        }
        run.finish(counts)
    return None


def plan(config: SeedsConfig) -> Plan:
    """What would be written."""
    return Plan([f"{config.train} training and {config.bench} bench seeds into {config.root}/world"])


if __name__ == "__main__":
    run_cli(__doc__, SeedsConfig, plan, main, "configs/miniature/seeds.yaml")
