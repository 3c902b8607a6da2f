"""The processes of one run: the environment they all have, and a mark in it, by which leftovers are found and ended.

Ray, vLLM and verl start a dozen processes that outlive a `kill -9` of their parent for a while. All of them inherit
the mark, and nothing else has it: no process of another run, or of another user, is ever touched.
"""

import contextlib
import os
import shutil
import signal
import tempfile
from pathlib import Path

import psutil
from omegaconf import DictConfig, OmegaConf, open_dict

from safer_steer.dialogue import stable_hash
from safer_steer.errors import UserError
from safer_steer.servers import VLLM_CPU_ENV
from safer_steer_verl.beats import FOLDER as BEATS
from safer_steer_verl.platform import GROUP_TIMEOUT
from safer_steer_verl.platform.vllm_metadata import metadata_folder

REPOSITORY = Path(__file__).resolve().parents[2]
MARK = "SAFER_STEER_RUN"
GRACE_S = 5.0
LONGEST_TMPDIR = 23  # characters: of 107 for a socket, the rest are the folder of the run and Ray's own names
QUIET_ENV = {
    "DO_NOT_TRACK": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TOKENIZERS_PARALLELISM": "false",
    "HYDRA_FULL_ERROR": "1",
}
OFFLINE_ENV = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}  # for a model that is a folder
CPU_ENV = VLLM_CPU_ENV | {
    "VERL_PLATFORM": "cpu",
    "VERL_USE_EXTERNAL_MODULES": "safer_steer_verl.platform.cpu",
    "VLLM_LOGGING_LEVEL": "WARN",
    "RAY_memory_monitor_refresh_ms": "0",  # Ray would end workers when the machine is full, also when others fill it
    "RAY_worker_niceness": "0",  # Ray's 15 starves the workers where anything else runs
}


def environment(config: DictConfig, folder: Path) -> dict[str, str]:
    """The environment of verl's first process; Ray hands it on to every worker.

    Args:
        config: as verl reads it.
        folder: the run folder.
    """
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


def mark_of(folder: Path) -> str:
    """The environment value that marks the processes of the run in `folder`."""
    return str(folder.resolve())


def ray_folder(folder: Path) -> Path:
    """Ray's private temporary folder of this run; short, since Ray puts sockets (at most 107 characters) below it: in
    /tmp where TMPDIR is longer than that leaves room for.
    """
    place = tempfile.gettempdir()
    base = Path(place if len(place) <= LONGEST_TMPDIR else "/tmp")
    return base / f"ray-{os.getuid()}-{stable_hash(mark_of(folder))[:8]}"


def make_ray_folder(folder: Path) -> None:
    """Makes Ray's folder again, for this user only: its name can be guessed, and Ray's sockets lie in it.

    Raises:
        UserError: another user's folder of this name is in the way.
    """
    place = ray_folder(folder)
    shutil.rmtree(place, ignore_errors=True)
    try:
        place.mkdir(mode=0o700)
    except FileExistsError as error:
        raise UserError(
            f"{place} is there and cannot be removed, it may be another user's; set TMPDIR to a folder of your own"
        ) from error


def run_processes(folder: Path) -> list[psutil.Process]:
    """The living processes that carry this run's mark, without the calling one."""
    mark, found = mark_of(folder), []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.environ().get(MARK) == mark:
                found.append(process)
    return found


def end_run_processes(folder: Path, grace_s: float = GRACE_S) -> int:
    """Ends every process of this run, by force after `grace_s`; returns how many there were.

    The caller holds the run's lock.
    """
    processes = run_processes(folder)
    for number in (signal.SIGTERM, signal.SIGKILL) if grace_s else (signal.SIGKILL,):
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        _, alive = psutil.wait_procs(processes, timeout=grace_s or GRACE_S)
        if not alive:
            break
        processes = [*alive, *(p for p in run_processes(folder) if p not in alive)]
    return len(processes)
