"""What can befall a GRPO run: a process of one role is killed or stopped at one moment, and the run ends by itself."""

import random
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from grpo_run import command
from safer_steer.store import read_jsonl
from safer_steer_verl.beats import MICRO_BATCH, TURN
from training.grpo.processes import run_processes

TITLES = {"rollout engine": "vLLMHttpServer", "trainer worker": "WorkerDict", "tutor": "fake_tutor.py"}
MOMENTS = ("start", "rollout", "update")
MOST_S = 3000.0  # for the moment to come, and for the run to end
SMALL = (  # one rank, one engine, one worker: half the start
    "trainer.n_gpus_per_node=1",
    "ray_kwargs.ray_init.num_gpus=1",
    "ray_kwargs.ray_init.num_cpus=6",
    "actor_rollout_ref.rollout.agent.num_workers=1",
    "trainer.val_before_train=false",
    "trainer.test_freq=-1",
    "trainer.logger=[]",
    "actor_rollout_ref.actor.use_dynamic_bsz=true",  # by tokens; test_grpo_engine.py has them by rows
    "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=512",
)
STALL_S = 300  # above what a busy machine needs to start the engines


@dataclass(frozen=True)
class Suffering:
    """One thing that happens: role and moment as above, "kill" or "stop", seconds from the moment's begin."""

    role: str
    moment: str
    how: str
    after_s: float


@dataclass(frozen=True)
class Ended:
    """How the run ended: exit code, last line of stderr, seconds from what happened to the end, steps so far."""

    code: int
    last_line: str
    seconds: float
    steps: int


def sufferings(seed: int) -> list[Suffering]:
    """Every role at every moment, at seeded delays; the last one is stopped, not killed."""
    rng = random.Random(seed)
    kills = [Suffering(role, moment, "kill", rng.uniform(0, 1)) for role in TITLES for moment in MOMENTS]
    return [*kills, Suffering("rollout engine", "rollout", "stop", rng.uniform(0, 1))]


def suffer(root: Path, what: Suffering, *overrides: str) -> Ended:
    """Runs the stage's command until it ends because of what happens to it."""
    folder = root / "grpo"
    with (root / "said.txt").open("w") as said:
        run = subprocess.Popen([*command(root), *SMALL, *overrides], stdout=subprocess.DEVNULL, stderr=said)
    try:
        victims = _wait(run, folder, what)
        time.sleep(what.after_s)
        for process in victims:
            process.kill() if what.how == "kill" else process.suspend()
        started = time.monotonic()
        code = run.wait(MOST_S)
        seconds = time.monotonic() - started
    finally:
        run.kill()
        run.wait()
    lines = (root / "said.txt").read_text().strip().splitlines() or [""]
    metrics = folder / "metrics.jsonl"
    return Ended(code, lines[-1], seconds, len(list(read_jsonl(metrics))) if metrics.is_file() else 0)


def _wait(run: subprocess.Popen, folder: Path, what: Suffering) -> list[psutil.Process]:
    """Waits for the moment; returns the processes of the role."""
    deadline = time.monotonic() + MOST_S
    while time.monotonic() < deadline and run.poll() is None:
        beats = {path.name for path in (folder / "log" / "beats").glob("*")} if _is_up(run, folder) else set()
        victims = _processes(run, folder, TITLES[what.role])
        reached = {"start": True, "rollout": TURN in beats, "update": MICRO_BATCH in beats}[what.moment]
        if victims and reached:
            return victims
        time.sleep(0.25)
    raise AssertionError(
        f"{what} never came: the run ended with {run.poll()}: {(folder.parent / 'said.txt').read_text()}"
    )


def _is_up(run: subprocess.Popen, folder: Path) -> bool:
    """Whether verl runs, so that the signs of life are of this attempt."""
    return any("safer_steer_verl.main" in " ".join(_command(process)) for process in run_processes(folder))


def _processes(run: subprocess.Popen, folder: Path, title: str) -> list[psutil.Process]:
    if title.endswith(".py"):  # a service; its watchdog, which names it too, is not meant
        below = psutil.Process(run.pid).children(recursive=True)
        return [process for process in below if _command(process)[1:2] and _command(process)[1].endswith(title)]
    return [process for process in run_processes(folder) if title in (_command(process) or [""])[0]]


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
