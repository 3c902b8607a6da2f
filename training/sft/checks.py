"""What can be wrong with an SFT run before any engine is loaded: arithmetic, files, processes, trackers, DeepSpeed."""

import importlib.util
from pathlib import Path
from typing import Any

import yaml

from safer_steer.weights import is_hub_id

TRACKER_PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "swanlab": "swanlab"}
# The trainer fills these in from our config, so that one number is written in one place.
TRAINERS_OWN = (
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "gradient_clipping",
)


def batch_problem(batch: int, per_device: int, accumulation: int, processes: int) -> str | None:
    """A sentence when the effective batch is not the product of its parts, else None."""
    product = per_device * accumulation * processes
    if product == batch:
        return None
    return (
        f"batch_size {batch} is not per_device_batch_size {per_device} x gradient_accumulation {accumulation} x "
        f"processes {processes} = {product}"
    )


def launch_problem(training: Any, launched: int) -> str | None:
    """A sentence when another number of processes was launched than `training.processes`, else None."""
    if launched == training.processes:
        return None
    accumulation, rest = divmod(training.batch_size, training.per_device_batch_size * launched)
    advice = "or change training.per_device_batch_size"
    if not rest:
        advice = f"or set training.processes={launched} training.gradient_accumulation={accumulation}"
    return (
        f"{launched} process(es) were launched, but training.processes is {training.processes}: the batch would not "
        f"be {training.batch_size}; launch {training.processes} (GPUS={training.processes} bash scripts/run_sft.sh) "
        f"{advice}"
    )


def file_problems(model: str | None = None, data: str | None = None) -> list[str]:
    """Sentences for a checkpoint or a data file that is not there."""
    problems = []
    if model is not None and not is_hub_id(model) and not (Path(model) / "config.json").is_file():
        problems.append(f"no checkpoint at {model}: no config.json; run the stage that writes it, or set model=")
    if data is not None and not Path(data).is_file():
        problems.append(f"file not found: {data}; run the data construction stage that writes it, or set data=")
    return problems


def tracker_problems(trackers: list[str]) -> list[str]:
    """Sentences for trackers whose package is not installed."""
    return [
        f"training.trackers: {name} is not installed; run: uv pip install {TRACKER_PACKAGES[name]}, or leave it out"
        for name in trackers
        if importlib.util.find_spec(TRACKER_PACKAGES[name]) is None
    ]


def deepspeed_problem(path: str) -> str:
    """Checks a DeepSpeed file; returns its path.

    Raises:
        ValueError: it is missing, holds no ZeRO stage 2 or 3, or sets what the SFT config decides.
    """
    if not Path(path).is_file():
        raise ValueError(f"no DeepSpeed file {path}; see configs/deepspeed/ for those that exist")
    try:
        settings = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        stage = settings["zero_optimization"]["stage"]
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not YAML with zero_optimization.stage: {error!r}") from error
    if stage not in (2, 3):
        raise ValueError(f"{path}: zero_optimization.stage is {stage!r}; allowed: 2, 3")
    own = [name for name in TRAINERS_OWN if settings.get(name) != "auto"]
    if own:
        raise ValueError(f"{path}: {', '.join(own)} must be `auto`: the SFT config's training section decides them")
    return path


def problems_before_start(config: Any, launched: int) -> list[str]:
    """Everything that would stop the run, found without an engine.

    Args:
        config: a valid `SftConfig`.
        launched: number of processes that were launched.
    """
    launch = launch_problem(config.training, launched)
    return [
        *([launch] if launch else []),
        *file_problems(config.model, config.data),
        *tracker_problems(config.training.trackers),
    ]
