"""SFT that does nothing any more, or has lost a rank, ends with the likely cause: a thread in every rank looks.

A rank that waits for another one in NCCL or gloo sits in native code: nothing but another thread of it can say so.
"""

import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from transformers import TrainerCallback

from safer_steer import interrupts
from safer_steer.deaths import MemoryLog, cause_of_death, is_stopped
from safer_steer.failures import AGAIN

LOOK_EVERY_S = 1.0
LESS_MEMORY = (
    "lower training.per_device_batch_size, training.data_workers or max_length, or use a machine with more memory"
)


class StallWatch(TrainerCallback):
    """Signs of life are forward passes, steps and saved checkpoints; without one for `limit_s` the process ends itself.

    Ranks of this node that vanish are named at once by the lowest one that is left; the launcher then ends the rest.
    """

    def __init__(self, limit_s: float, folder: Path):
        self.limit_s, self.folder = limit_s, folder
        self.memory = MemoryLog()
        self.rank = int(os.environ.get("RANK", "0"))
        self._alive = time.monotonic()
        self._done = threading.Event()
        self._others: dict[int, int] = {}  # process -> rank, on this node

    def start(self) -> None:
        """Begins to look, when all ranks are there."""
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            self._ended(self.rank).parent.mkdir(parents=True, exist_ok=True)
            self._ended(self.rank).unlink(missing_ok=True)
            self._others = _ranks_beside()
            interrupts.ask_first(self.lost_rank)  # torchrun may notice first, and ends this rank with a signal
        self.beat()
        threading.Thread(target=self._watch, name="stall-watch", daemon=True).start()

    def stop(self) -> None:
        """Ends the watch; the other ranks learn that this one ends by itself, and has said why if it failed."""
        self._done.set()
        if self._others:
            self._ended(self.rank).touch()

    def _ended(self, rank: int) -> Path:
        """A file by which ranks know that another one has not just vanished."""
        return self.folder / "trainer" / f"rank_{rank}.ended"

    def beat(self) -> None:
        """Something was done."""
        self._alive = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A step is done."""
        self.beat()

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A checkpoint is written."""
        self.beat()

    def _watch(self) -> None:
        looked = time.monotonic()
        while not self._done.wait(LOOK_EVERY_S):
            self.memory.sample()
            late = time.monotonic() - looked - LOOK_EVERY_S
            self._alive += max(0.0, late - LOOK_EVERY_S)  # this process itself was stopped meanwhile
            looked = time.monotonic()
            if (problem := self.lost_rank()) or (problem := self._stall()):
                print(f"error: {problem}", file=sys.stderr, flush=True)
                os._exit(1)

    def _stall(self) -> str | None:
        if time.monotonic() - self._alive < self.limit_s:
            return None
        stopped = [f"rank {rank} (process {pid})" for pid, rank in self._others.items() if is_stopped(pid)]
        silent = f"stopped by a signal: {', '.join(stopped)}" if stopped else "another rank or the network is silent"
        return (
            f"rank {self.rank}: nothing has happened for {self.limit_s:.0f} s (training.stall_s): no forward pass, no "
            f"step, no checkpoint; {silent}; training is ended; {AGAIN}"
        )

    def lost_rank(self) -> str | None:
        """What became of a rank of this node that vanished without a word; only the lowest one that is left says it."""
        gone = {pid: rank for pid, rank in self._others.items() if not _is_there(pid)}
        vanished = [(pid, rank) for pid, rank in gone.items() if not self._ended(rank).exists()]
        left = [rank for pid, rank in self._others.items() if pid not in gone]
        if not vanished or any(rank < self.rank for rank in left):
            return None
        pid, rank = vanished[0]
        return f"rank {rank} (process {pid}) {cause_of_death(None, self.memory, LESS_MEMORY)}"


def _ranks_beside() -> dict[int, int]:
    """The other ranks that this process's launcher has started on this node: process -> rank."""
    found = {}
    for process in psutil.Process(os.getppid()).children():
        try:
            rank = process.environ().get("RANK")
        except psutil.Error:
            continue
        if rank is not None and process.pid != os.getpid():
            found[process.pid] = int(rank)
    return found


def _is_there(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.Error:
        return False
