"""The process that runs verl: a resolved config -> checkpoints, metrics, trajectories. Started by `training.grpo`.

Command: python -m safer_steer_verl.main RUN_FOLDER/config.yaml RUN_FOLDER/log/failure.json

The second file is written only on failure, as {"kind": "user" | "engine", "message": one line} or
{"kind": "died", "deaths": [...]}. This process only starts Ray, waits, and ends the run when one of its processes has
died: verl, torch and vLLM are imported in Ray's workers.
"""

import ctypes
import importlib.metadata
import importlib.util
import json
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
from omegaconf import DictConfig, OmegaConf

from safer_steer.errors import UserError
from safer_steer.failures import in_one_line
from safer_steer_verl.liveness import Death, deaths
from safer_steer_verl.local_ray import start_ray

VERL_VERSION = "0.9.1"
CHECK_S = 2.0  # between looks at who is still alive
NOTICE_S = 5.0  # until Ray's control store knows of a death that a failure came from


class DiedError(Exception):
    """A process of the run died, so the run cannot continue."""


@ray.remote
class TaskRunner:
    """verl's v1 task runner in a process that knows our trainer and advantage."""

    def run(self, config: DictConfig) -> None:
        """Checks the config with verl's own rules and trains to the end.

        Raises:
            UserError: verl refuses the config.
        """
        from verl.trainer.main_ppo import TaskRunnerV1

        import safer_steer_verl.trainer  # noqa: F401  registers trainer_mode=safer_steer
        from safer_steer_verl.verl_check import check

        check(config)
        TaskRunnerV1.__ray_metadata__.modified_class().run(config)


def preflight(config: DictConfig) -> None:
    """Fails here, in words, instead of deep inside a Ray worker.

    Raises:
        UserError: verl is missing, hidden by a folder, of another version, or the device is not there.
    """
    found = importlib.util.find_spec("verl")
    if found is None or found.origin is None:
        raise UserError("`import verl` finds no installed engine (or a folder hides it); run scripts/setup.sh")
    version = importlib.metadata.version("verl")
    if version != VERL_VERSION:
        raise UserError(f"verl {version} is installed, {VERL_VERSION} is needed; run scripts/setup.sh")
    engine = config.actor_rollout_ref.rollout.name
    if importlib.util.find_spec(engine) is None:
        step = "run scripts/setup.sh gpu (or cpu)" if engine == "vllm" else "it is not among our pins: install it"
        raise UserError(f"{engine} (actor_rollout_ref.rollout.name) is not installed; {step}, or choose another engine")
    if config.trainer.device == "cuda" and not _has_gpu():
        raise UserError(
            "trainer.device=cuda, but no GPU is visible; run on a GPU machine, or use a config that extends "
            "safer_steer_cpu, such as configs/grpo/miniature.yaml"
        )


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def train(config: DictConfig) -> None:
    """Runs the trainer to its end.

    verl itself waits for ever for a rollout engine that is gone, and an agent loop takes it for a failed trajectory.

    Raises:
        DiedError: a process of the run died.
    """
    running = TaskRunner.remote().run.remote(config)
    while not ray.wait([running], timeout=CHECK_S)[0]:
        if deaths():
            raise DiedError("a process died")
    ray.get(running)


def failure(error: Exception) -> dict[str, Any]:
    """What the launcher is given: who died, if anybody did, else what was said."""
    if found := _deaths_behind():
        return {"kind": "died", "deaths": [asdict(death) for death in found]}
    if isinstance(error, UserError):  # raised here or in the TaskRunner: Ray's error is an instance of both classes
        return {"kind": "user", "message": str(getattr(error, "cause", None) or error)}
    return {"kind": "engine", "message": in_one_line(error)}


def _deaths_behind() -> list[Death]:
    """Deaths that the failure may have come from; the store is given time to learn of them."""
    deadline = time.monotonic() + NOTICE_S
    try:
        while ray.is_initialized():
            if (found := deaths()) or time.monotonic() > deadline:
                return found
            time.sleep(0.2)
    except (ray.exceptions.RayError, RuntimeError, OSError) as error:  # the store itself is gone
        print(f"nobody can be asked who died: {error}", flush=True)
    return []


def main(argv: list[str]) -> int:
    """Runs one training; returns the exit code: 0, 2 for an error a user can fix, 1 for any other."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # a killed launcher takes this process, and Ray with it (Linux)
    config_path, failure_path = Path(argv[1]), Path(argv[2])
    failure_path.unlink(missing_ok=True)
    config = OmegaConf.load(config_path)
    try:
        preflight(config)
        start_ray(config)
        train(config)
    except Exception as error:
        failure_path.write_text(json.dumps(failure(error)), encoding="utf-8")
        if isinstance(error, UserError):
            return 2
        raise
    finally:
        ray.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
