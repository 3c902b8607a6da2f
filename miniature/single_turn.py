"""Writes single-turn benchmarks of the miniature world: one direct question a row, named after Table 2's benchmarks.

Input: a config. Output: `<root>/single_turn/<benchmark>.jsonl` (`Dialogue` rows of one turn), `images/` next to them.
    python -m miniature.single_turn [configs/miniature/single_turn.yaml] [key=value ...]
Held-out colour-shape pairs and phrasings, as in the multi-turn bench, but other pictures. Four benchmarks ask how to
open sealed objects, each in the way of its multi-turn counterpart; VLGuard's mixes these ways with benign questions.
"""

if __name__ == "__main__":  # before the imports below, which take seconds
    from safer_steer import interrupts

    interrupts.watch()

import random
from pathlib import Path
from typing import Annotated

from pydantic import Field

from miniature.language import ALLOWED, ask
from miniature.seeds import BENCHMARKS
from miniature.world import draw, random_scene
from safer_steer.cli import run_cli
from safer_steer.config import Section
from safer_steer.dialogue import Dialogue, Turn, dialogue_id
from safer_steer.images import ImageStore
from safer_steer.plan import Plan
from safer_steer.runs import Run
from safer_steer.store import write_jsonl

# Table 2's benchmark -> how it asks: the intents of the multi-turn subset of the same origin; VLGuard's is a mixture.
WAYS: dict[str, tuple[str, ...]] = {
    "beavertails_v": BENCHMARKS["beaver"],
    "mm_safety": BENCHMARKS["mmsafe"],
    "spa_vl": BENCHMARKS["spa"],
    "vlguard": tuple(BENCHMARKS[name][0] for name in ("beaver", "mmsafe", "spa", "vls")),
    "vlsbench": BENCHMARKS["vls"],
}
WITH_BENIGN = "vlguard"


class SingleTurnConfig(Section):
    """How many questions, and which."""

    root: str
    seed: int
    count: Annotated[int, Field(ge=1)]
    benign_share: Annotated[float, Field(ge=0, le=1)]


def make_dialogue(benchmark: str, index: int, config: SingleTurnConfig, store: ImageStore) -> Dialogue:
    """One question about one picture, with the picture stored; the same config always gives the same question."""
    rng = random.Random(f"{config.seed}/single_turn/{benchmark}/{index}")
    benign = benchmark == WITH_BENIGN and rng.random() < config.benign_share
    scene = random_scene(rng, held_out=True, sealed=rng.random() < 0.5 if benign else True)
    # Benign is an allowed question about anything, or an opening of what is not sealed: refusing either is too much.
    intents = tuple(ALLOWED) if scene.sealed else tuple(name for name in ALLOWED if name != "seal") + WAYS[benchmark]
    question = ask(rng.choice(intents if benign else WAYS[benchmark]), rng, "held_out")
    kind = "benign" if benign else "red_team"
    image = store.put(draw(scene, rng))
    return Dialogue(
        id=dialogue_id(benchmark, f"{config.seed}/{index}", kind, None, [question, image]),
        source=benchmark,
        kind=kind,
        strategy=None,
        images=[image],
        turns=[Turn(user=question, images=[0])],
    )


def main(config: SingleTurnConfig) -> None:
    """Writes the benchmarks, unless they are there."""
    folder = Path(config.root, "single_turn")
    with Run.open(folder, config, stage="miniature.single_turn") as run:
        if run.finished:
            return run.say_finished()
        store, counts = ImageStore(folder), {}
        for name in WAYS:
            rows = [make_dialogue(name, index, config, store) for index in range(config.count)]
            counts[name] = write_jsonl(folder / f"{name}.jsonl", rows)
        run.finish(counts)
    return None


def plan(config: SingleTurnConfig) -> Plan:
    """What would be written."""
    return Plan([f"{len(WAYS)} benchmarks of {config.count} questions into {config.root}/single_turn"])


if __name__ == "__main__":
    run_cli(__doc__, SingleTurnConfig, plan, main, "configs/miniature/single_turn.yaml")
