"""The processes of one run: a mark in their environment, so that leftovers of a killed run can be found, measured and
ended.

Ray, vLLM and verl start a dozen processes that outlive a `kill -9` of their parent for a while. All of them inherit
the mark, and nothing else has it: no process of another run, or of another user, is ever touched.
"""

import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

import psutil

from safer_steer.dialogue import stable_hash
from safer_steer.errors import UserError

MARK = "SAFER_STEER_RUN"
GRACE_S = 5.0


def mark_of(folder: Path) -> str:
    """The environment value that marks the processes of the run in `folder`."""
    return str(folder.resolve())


def ray_folder(folder: Path) -> Path:
    """Ray's private temporary folder of this run; short, since Ray puts sockets (at most 107 characters) below it."""
    return Path(tempfile.gettempdir()) / f"ray-{os.getuid()}-{stable_hash(mark_of(folder))[:8]}"


def make_ray_folder(folder: Path) -> None:
    """Makes Ray's folder anew, for this user only: its name can be guessed, and Ray's sockets lie in it.

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
        try:
            if process.pid != os.getpid() and process.environ().get(MARK) == mark:
                found.append(process)
        except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess, OSError):
            continue
    return found


def end_run_processes(folder: Path, grace_s: float = GRACE_S) -> int:
    """Ends every process of this run, by force after `grace_s`; returns how many there were.

    The caller holds the run's lock.
    """
    processes = run_processes(folder)
    for number in (signal.SIGTERM, signal.SIGKILL) if grace_s else (signal.SIGKILL,):
        for process in processes:
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                continue
        _, alive = psutil.wait_procs(processes, timeout=grace_s or GRACE_S)
        if not alive:
            break
        processes = [*alive, *(p for p in run_processes(folder) if p not in alive)]
    return len(processes)


class MemoryMeter:
    """Peak memory of the run's processes together, in MiB: their proportional set sizes, so shared pages count once."""

    def __init__(self, folder: Path, every_s: float = 10.0):
        self.folder, self.every_s, self.peak_mb = folder, every_s, 0.0
        self._next = 0.0

    def sample(self) -> None:
        """Measures, if it is time to."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + self.every_s
        total = 0
        for process in run_processes(self.folder):
            try:
                total += process.memory_full_info().pss
            except (psutil.AccessDenied, psutil.NoSuchProcess, OSError):
                continue
        self.peak_mb = max(self.peak_mb, total / 2**20)
