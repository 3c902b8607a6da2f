"""Stages I and II: seeds -> dialogues -> STEER-SFT, STEER-RL and STEER-Bench, all in `${root}/data`.

    python -m data_construction.run [CONFIG] [key=value ...] [--dry-run]

Steps (config `steps`): `stage1` probe, expand and red-team; `stage2` red-blue bootstrapping with its scores; `history`
judges which risk rows depend on their history (optional); `assemble` applies the keep rule and makes the splits. Each
step resumes by task id, and does nothing when it is finished.
"""

if __name__ == "__main__":  # before the imports below, which take seconds
    from safer_steer import interrupts

    interrupts.watch()

from data_construction.assemble.judge_history import run_history
from data_construction.assemble.write import run_assemble
from data_construction.config import DataConfig
from data_construction.plan import plan
from data_construction.stage_one import run_stage_one
from data_construction.stage_two import run_stage_two
from safer_steer.cli import run_cli
from safer_steer.folder_lock import hold

DEFAULT_CONFIG = "configs/data_construction/miniature.yaml"
STEPS = {"stage1": run_stage_one, "stage2": run_stage_two, "history": run_history, "assemble": run_assemble}


def main(config: DataConfig) -> None:
    """Runs the configured steps in their order, as the only process in the data folder."""
    with hold(config.folder):
        for name, step in STEPS.items():
            if name in config.steps:
                step(config)


if __name__ == "__main__":
    run_cli(__doc__, DataConfig, plan, main, DEFAULT_CONFIG)
