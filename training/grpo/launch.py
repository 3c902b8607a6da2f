"""Runs verl in a child process: environment, progress from `metrics.jsonl`, and few useful lines when it fails.

Input: a resolved config. Output: `RUN_FOLDER/{config.yaml, log/verl.log, metrics.jsonl, trajectories.jsonl,
checkpoints/}`.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from safer_steer.deaths import MemoryLog
from safer_steer.errors import UserError
from safer_steer.llm.usage import UNKNOWN
from safer_steer.progress import ProgressBar
from safer_steer.store import read_jsonl
from safer_steer_verl.beats import FOLDER as BEATS
from safer_steer_verl.platform import GROUP_TIMEOUT, attention
from safer_steer_verl.platform.vllm_metadata import metadata_folder
from training.grpo.failure import failure_message
from training.grpo.processes import (
    GRACE_S,
    MARK,
    MemoryMeter,
    end_run_processes,
    make_ray_folder,
    mark_of,
    ray_folder,
)
from training.grpo.watch import StallWatch

REPOSITORY = Path(__file__).resolve().parents[2]
POLL_S = 0.5
STOP_GRACE_S = 20.0
QUIET_ENV = {
    "DO_NOT_TRACK": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TOKENIZERS_PARALLELISM": "false",
    "HYDRA_FULL_ERROR": "1",
}
OFFLINE_ENV = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}  # for a model that is a folder
# Two processes on two cores are faster than two threads in one: measured 2,499 against ~1,250 tokens/s in vLLM.
CPU_ENV = {
    "VERL_PLATFORM": "cpu",
    "VERL_USE_EXTERNAL_MODULES": "safer_steer_verl.platform.cpu",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # lets the model run in the engine's process
    "VLLM_CPU_SGL_KERNEL": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "VLLM_LOGGING_LEVEL": "WARN",
    "RAY_memory_monitor_refresh_ms": "0",  # Ray would end workers when the machine is full, also when others fill it
    "RAY_worker_niceness": "0",  # Ray's 15 starves the workers where anything else runs
}


def resolve(tree: DictConfig, folder: Path, urls: dict[str, Any]) -> DictConfig:
    """The config as verl reads it: absolute paths, service addresses filled in, Ray's private folder, no
    interpolations.

    Args:
        tree: the composed config, interpolations kept.
        folder: the run folder.
        urls: the tutor endpoint with its real address, as plain data.
    """
    tree = OmegaConf.create(OmegaConf.to_container(tree, resolve=False))
    tree.root, tree.output = str(Path(tree.root).resolve()), str(folder.resolve())
    tree.safer_steer.tutor = urls
    attention.apply(tree)
    plain = OmegaConf.create(OmegaConf.to_container(tree, resolve=True))
    model = plain.actor_rollout_ref.model
    if Path(model.path).exists():
        model.path = str(Path(model.path).resolve())
    data = plain.safer_steer.data
    data.source = str(Path(data.source).resolve())
    data.validation = [str(Path(path).resolve()) for path in data.get("validation", [])]
    with open_dict(plain):
        if not plain.ray_kwargs.ray_init.get("address"):  # a cluster that was named is used as it is
            plain.ray_kwargs.ray_init._temp_dir = str(ray_folder(folder))
    return plain


def environment(config: DictConfig, folder: Path) -> dict[str, str]:
    """The child's environment; Ray hands it on to every worker."""
    paths = [str(REPOSITORY), str(REPOSITORY / "verl"), os.environ.get("PYTHONPATH", "")]
    shim = metadata_folder(folder / "log" / "vllm_metadata")
    paths = [*([str(shim)] if shim else []), *(path for path in paths if path)]
    env = {**QUIET_ENV, "TENSORBOARD_DIR": str(folder.resolve() / "tensorboard"), **os.environ}
    env |= {"PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)), MARK: mark_of(folder)}
    env |= {GROUP_TIMEOUT: str(config.actor_rollout_ref.nccl_timeout), BEATS: str(folder.resolve() / "log" / "beats")}
    if config.trainer.device == "cpu":
        env |= CPU_ENV
        env.pop("CUDA_VISIBLE_DEVICES", None)  # Ray counts what it names, and would find less than its logical GPUs
    if Path(config.actor_rollout_ref.model.path).is_dir():
        env |= OFFLINE_ENV
    return env


def hand_on(config: DictConfig, env: dict[str, str]) -> None:
    """Puts the variables of `environment` into the config where a Ray cluster was named, for its workers on every node.

    They inherit the environment of the `ray start` before them, not ours. Keys stay out of it: a config is a file.
    """
    if not config.ray_kwargs.ray_init.get("address"):
        return
    known = {*QUIET_ENV, *CPU_ENV, *OFFLINE_ENV}
    given = {name: value for name, value in env.items() if name in known or value != os.environ.get(name)}
    with open_dict(config):
        ours = OmegaConf.create({"runtime_env": {"env_vars": dict(sorted(given.items()))}})
        config.ray_kwargs.ray_init = OmegaConf.merge(ours, config.ray_kwargs.ray_init)


def prepare_data(config_path: Path, env: dict[str, str]) -> dict[str, Any]:
    """Makes the parquet file in a process of its own, whose libraries do not stay in memory; returns the counts."""
    command = [sys.executable, "-m", "training.grpo.prepare", str(config_path)]
    answer = subprocess.run(command, env=env, stderr=subprocess.PIPE, text=True, check=False)
    if answer.returncode:
        last = (answer.stderr.strip().splitlines() or ["no output"])[-1]
        raise UserError(last.removeprefix("error: ") if answer.returncode == 2 else f"data preparation failed: {last}")
    counts = config_path.parent / "data" / "counts.json"
    return json.loads(counts.read_text(encoding="utf-8"))


def train(config_path: Path, env: dict[str, str], *, steps: int, done: int, stall_s: float) -> float:
    """Runs verl to its end, with a progress bar over steps.

    Args:
        config_path: RUN_FOLDER/config.yaml.
        env: see `environment`.
        steps: the step to reach.
        done: steps of an earlier run that this one resumes after.
        stall_s: seconds without any sign of life after which the run is ended.

    Returns:
        Peak memory of all processes of the run, in MiB.

    Raises:
        UserError: verl failed, one of its processes died, or nothing happened any more; the message has the reason and
            names the log.
    """
    folder = config_path.parent
    log_path, failure_path = folder / "log" / "verl.log", folder / "log" / "failure.json"
    log_path.parent.mkdir(parents=True, exist_ok=True)
    make_ray_folder(folder)
    command = [sys.executable, "-m", "safer_steer_verl.main", str(config_path), str(failure_path)]
    meter, memory, watch = MemoryMeter(folder), MemoryLog(), StallWatch(folder, stall_s)

    def look() -> None:
        meter.sample()
        memory.sample()
        watch.look()

    failure_path.unlink(missing_ok=True)  # of an attempt before
    if log_path.is_file():
        log_path.replace(log_path.with_name("verl.previous.log"))
    with log_path.open("wb") as log:
        child = subprocess.Popen(
            command, env=env, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True
        )
        try:
            with ProgressBar("grpo steps", total=steps, done=done) as bar:
                for row in _new_rows(folder / "metrics.jsonl", done, child, look):
                    print(step_line(row), file=sys.stderr, flush=True)
                    bar.advance()
        finally:
            _stop(child, folder)
    if child.returncode != 0:
        raise UserError(failure_message(child.returncode, failure_path, log_path, memory))
    return meter.peak_mb


def tutor_usage(metrics: Path) -> dict[str, Any]:
    """Calls, retries, tokens and cost of the tutor over all steps, from the running totals that each worker reports;
    what of its requests was not sent as configured.

    `usd` is "unknown" when it is for one of the workers.
    """
    latest: dict[str, dict[str, Any]] = {}
    for row in read_jsonl(metrics):
        latest |= row.get("tutor_usage") or {}
    names = ("calls", "retries", "tokens_in", "tokens_out")
    usage = {name: sum(stats.get(name, 0) for stats in latest.values()) for name in names}
    costs = [stats.get("usd", UNKNOWN) for stats in latest.values()]
    changed = {name: how for stats in latest.values() for name, how in stats.get("changed", {}).items()}
    return usage | {"usd": UNKNOWN if UNKNOWN in costs else sum(costs)} | ({"changed": changed} if changed else {})


def _new_rows(path: Path, done: int, child: subprocess.Popen, look: Callable[[], None]) -> Iterator[dict[str, Any]]:
    """The metrics rows of steps after `done`, as the child writes them, until it ends; `look` is called meanwhile."""
    seen = done
    while True:
        ended = child.poll() is not None
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        for row in map(json.loads, lines[-64:]):
            if row["step"] > seen:
                seen = row["step"]
                yield row
        if ended:
            return
        look()
        time.sleep(POLL_S)


# What the console says of a step: label, metric, format.
_SAID = (
    ("reward", "tutor/turn_reward_mean", ".3f"),
    ("return", "tutor/return_mean", ".2f"),
    ("safety", "tutor/safety_mean", ".2f"),
    ("usefulness", "tutor/usefulness_mean", ".2f"),
    ("faithfulness", "tutor/faithfulness_mean", ".2f"),
    ("fully safe", "tutor/fully_safe_share", ".0%"),
    ("first failure at turn", "tutor/first_failure_turn", ".1f"),
    ("over-refusal", "tutor/benign_over_refusal_share", ".0%"),
    ("held-out reward", "val/tutor/turn_reward_mean", ".3f"),
    ("held-out fully safe", "val/tutor/fully_safe_share", ".0%"),
    ("masked", "rollout/masked", ".0f"),
    ("unscored", "rollout/unscored_rate", ".1%"),
    ("token faults", "rollout/token_fault_rate", ".1%"),
    ("KL", "actor/kl_loss", ".4f"),
    ("entropy", "actor/entropy", ".3f"),
    ("prob. diff.", "training/rollout_probs_diff_mean", ".1e"),
    ("tutor p50 s", "tutor/latency_p50_s", ".2f"),
    ("p95", "tutor/latency_p95_s", ".2f"),
    ("gen s", "timing_s/gen", ".1f"),
    ("log-probs", "timing_s/old_log_prob", ".1f"),
    ("update", "timing_s/update_actor", ".1f"),
)


def step_line(row: dict[str, Any]) -> str:
    """One line about a step; a metric that the step lacks is left out."""
    said = [f"{label} {row[key]:{form}}" for label, key, form in _SAID if row.get(key) is not None]
    return f"step {row['step']} ({row.get('timing_s/step') or 0:.1f} s): {', '.join(said)}"


def _stop(child: subprocess.Popen, folder: Path) -> None:
    """Ends the child and whatever else of this run is still alive; after a second Ctrl-C, by force."""
    grace_s = GRACE_S
    try:
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
            child.wait(STOP_GRACE_S)
    except subprocess.TimeoutExpired:
        pass
    except KeyboardInterrupt:
        grace_s = 0.0
        raise
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
        end_run_processes(folder, grace_s)
        shutil.rmtree(ray_folder(folder), ignore_errors=True)
