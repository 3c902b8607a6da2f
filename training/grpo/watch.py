"""A run that does nothing any more is ended with the likely cause: signs of life, and who is stopped.

What hangs says nothing: a frozen engine, a socket that nobody reads, ranks that wait for one another. A process that
has died is found sooner (`safer_steer_verl.liveness`).
"""

import time
from pathlib import Path

import psutil

from safer_steer.deaths import is_stopped
from safer_steer.errors import UserError
from safer_steer.failures import AGAIN
from safer_steer.machine import bytes_below
from safer_steer_verl.beats import MICRO_BATCH, TURN, VERDICT
from safer_steer_verl.roles import role_of
from training.grpo.processes import run_processes

LOOK_EVERY_S = 5.0
ROWS = ("metrics.jsonl", "trajectories.jsonl", "validation.jsonl")
WRITTEN = ("checkpoints", "best", ".best.partial")
SILENT = {  # what was done last -> who should have come next
    None: "it was still starting",
    TURN: "the last sign was a generated turn: the tutor is silent, or a rollout engine that others wait for",
    VERDICT: "the last sign was a verdict: the rollout engine is silent",
    MICRO_BATCH: "the last sign was a micro-batch: a trainer worker is silent, or the transfer of the weights",
}


class StallWatch:
    """Looks for signs of life of the run in `folder`; time in which this process itself was stopped does not count."""

    def __init__(self, folder: Path, limit_s: float):
        self.folder, self.limit_s = folder, limit_s
        self.beats = folder / "log" / "beats"
        self.beats.mkdir(parents=True, exist_ok=True)
        for file in self.beats.iterdir():  # of an attempt before
            file.unlink()
        self._seen: object = None
        self._idle, self._looked = 0.0, time.monotonic()

    def look(self) -> None:
        """Looks, if it is time to.

        Raises:
            UserError: nothing has happened for `limit_s`.
        """
        passed = time.monotonic() - self._looked
        if passed < LOOK_EVERY_S:
            return
        self._looked = time.monotonic()
        signs = self._signs()
        self._idle = self._idle + min(passed, 2 * LOOK_EVERY_S) if signs == self._seen else 0.0
        self._seen = signs
        if self._idle >= self.limit_s:
            raise UserError(self._message())

    def _signs(self) -> object:
        beats = {file.name: file.stat().st_mtime_ns for file in self.beats.iterdir()}
        rows = [path.stat().st_size for name in ROWS if (path := self.folder / name).is_file()]
        # Before its first turn a run says how far it is in the logs; later they grow also where it hangs.
        logs = [file.stat().st_size for file in (self.folder / "log").glob("*.log")] if not beats else []
        return beats, rows, logs, [bytes_below(self.folder / name) for name in WRITTEN]

    def _message(self) -> str:
        beats = {file.name: file.stat().st_mtime for file in self.beats.iterdir()}
        last = max(beats, key=beats.__getitem__, default=None)
        stopped = [_words(process) for process in run_processes(self.folder) if is_stopped(process.pid)]
        return (
            f"nothing has happened for {self.limit_s:.0f} s (safer_steer.stall_s): no generated turn, no verdict, no "
            f"micro-batch, no row and no byte of a checkpoint; {SILENT[last]}"
            + (f"; stopped by a signal: {', '.join(stopped)}" if stopped else "")
            + f"; the run is ended; see log/verl.log in {self.folder}, {AGAIN}"
        )


def _words(process: psutil.Process) -> str:
    try:
        title = (process.cmdline() or [process.name()])[0]
    except psutil.Error:
        return f"process {process.pid}"
    return f"{role_of(title)} ({title.split('.')[0]}, process {process.pid})"
