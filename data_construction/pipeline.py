"""Stages I and II: seeds -> dialogues -> STEER-SFT, STEER-RL and STEER-Bench, all in `${root}/data`.

    python -m data_construction.pipeline [CONFIG] [key=value ...] [--dry-run | --json]

Steps (config `steps`): `seeds` reads the sources and nothing more; `stage1` probe, expand and red-team; `score`
scores the candidates (optional); `stage2` red-blue bootstrapping with its scores; `history` judges which risk rows
depend on their history (optional); `assemble` applies the keep rule and makes the splits. Each step resumes by task id,
and does nothing when it is finished. `dialogues.path` puts a file of the user's own in the place of Stage I.
"""

if __name__ == "__main__":  # before the imports below, which take seconds
    from safer_steer import interrupts

    interrupts.watch()

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_construction.assemble.write import run_assemble
from data_construction.config import DataConfig
from data_construction.history import history
from data_construction.own_dialogues import own_dialogues
from data_construction.plan import plan
from data_construction.score import score
from data_construction.stage_one import seeds, stage_one
from data_construction.stage_two import stage_two
from data_construction.step import RECORDS
from safer_steer import runs
from safer_steer.cli import run_cli
from safer_steer.folder_lock import hold
from safer_steer.stage import Stage, run

DEFAULT_CONFIG = "configs/data_construction/default.yaml"
STAGES = {
    "seeds": seeds,
    "stage1": stage_one,
    "score": score,
    "stage2": stage_two,
    "history": history,
}  # in this order, then `assemble`


def main(config: DataConfig) -> None:
    """Runs the configured steps in their order, as the only process in the data folder."""
    if config.engine.name == "ray":  # workers run in other folders
        config = config.model_copy(update={"root": str(Path(config.root).resolve())})
    with hold(config.folder):
        run(stages(config), lambda: plan(config))
        if "assemble" in config.steps:
            run_assemble(config)


def stages(config: DataConfig) -> Iterator[Stage]:
    """The configured steps; dialogues of the user's own take Stage I's place, and are read whatever the steps are."""
    if config.dialogues:
        yield own_dialogues(config)
    for name, stage in STAGES.items():
        if name in config.steps and not (name == "stage1" and config.dialogues):
            yield stage(config)


def closing(config: DataConfig) -> dict[str, Any]:
    """What the closing lines of the steps say."""
    steps = {name: runs.closing(config.folder / RECORDS[name]) for name in RECORDS if name in config.steps}
    return {"folder": str(config.folder), "steps": steps}


if __name__ == "__main__":
    run_cli(__doc__, DataConfig, plan, main, DEFAULT_CONFIG, closing=closing)
