"""What a run needs of the machine, compared with what is there, in a fraction of a second and without an engine.

Every stage states its `Needs`. Its dry run prints what does not fit here (the run may be meant for another machine);
its start refuses what would break; the rehearsal puts everything into its table.
"""

import os
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from safer_steer.deaths import memory_in_use
from safer_steer.errors import UserError

Verdict = Literal["ok", "warning", "breaks", "not checked"]
GIB = 2**30
SHM = Path("/dev/shm")


@dataclass(frozen=True)
class Needs:
    """What a run asks of one of its machines; sizes in bytes, 0 where nothing is known to be needed.

    Attributes:
        device: where its engines compute.
        folder: its output folder.
        gpus: on each node.
        nodes: how many machines share the work.
        disk: at the moment when most is there, of the run's own files.
        disk_why: what that is, for the message.
        host: main memory of one node.
        host_why: what that is.
        shm: of /dev/shm.
    """

    device: Literal["cpu", "cuda"]
    folder: Path
    gpus: int = 0
    nodes: int = 1
    disk: float = 0.0
    disk_why: str = ""
    host: float = 0.0
    host_why: str = ""
    shm: float = 0.0


@dataclass(frozen=True)
class Finding:
    """One line of the table: what was checked, what is there, what is needed, whether that fits, what to do."""

    check: str
    found: str
    needed: str
    verdict: Verdict
    advice: str = ""

    def __str__(self) -> str:
        return f"{self.check}: {self.found}, needed: {self.needed}" + (f"; {self.advice}" if self.advice else "")


def check(needs: Needs) -> list[Finding]:
    """All findings about this machine."""
    return [*folder(needs), *disk(needs), *memory(needs), *shared_memory(needs), *gpus(needs)]


def require(needs: Needs) -> None:
    """Refuses a start that would break; all problems in one message.

    Raises:
        UserError: something is missing on this machine.
    """
    if int(os.environ.get("LOCAL_RANK", "0")):
        return  # the node's first process says it
    if broken := [str(finding) for finding in check(needs) if finding.verdict == "breaks"]:
        raise UserError("; ".join(broken))


def plan_lines(needs: Needs) -> list[str]:
    """For a dry run: what does not fit on this machine, which may not be the one that the run is for."""
    findings = [finding for finding in check(needs) if finding.verdict in ("breaks", "warning")]
    return [f"on this machine: {'this would stop the run' if f.verdict == 'breaks' else 'note'}: {f}" for f in findings]


def folder(needs: Needs) -> list[Finding]:
    """Whether the output folder can be written."""
    there = existing(needs.folder)
    problem = _write_problem(there)
    if problem is None:
        return [Finding("output folder", f"{there} can be written", "write access", "ok")]
    advice = "give this user the right to write there, or another output folder (root=, output=)"
    return [Finding("output folder", f"{there}: {problem}", f"write access, for {needs.folder}", "breaks", advice)]


def existing(path: Path) -> Path:
    """The path itself, or the nearest folder above it that is there."""
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _write_problem(there: Path) -> str | None:
    """Why no file can be made in a folder; tried with a file that has no name, where the file system can do that."""
    if not there.is_dir():
        return "a file is where a folder should be"
    try:
        if os.statvfs(there).f_flag & os.ST_RDONLY:
            return "the file system is mounted read-only"
        os.close(os.open(there, os.O_TMPFILE | os.O_RDWR, 0o600))
    except PermissionError as error:
        return str(error.strerror)
    except OSError:  # network file systems make no nameless files
        return None if os.access(there, os.W_OK | os.X_OK) else "no write permission"
    return None


def disk(needs: Needs) -> list[Finding]:
    """Free space where the output goes, what the run has written already counted in."""
    there = existing(needs.folder)
    free = shutil.disk_usage(there).free
    used = bytes_below(needs.folder) if needs.folder.is_dir() else 0
    found = f"{gb(free)} free at {there}" + (f" and {gb(used)} of this run" if used > GIB else "")
    if not needs.disk:
        return [Finding("disk", found, "not known", "ok")]
    wanted = f"{gb(needs.disk)} ({needs.disk_why})"
    if free + used >= needs.disk:
        return [Finding("disk", found, wanted, "ok")]
    advice = "free space, or give an output folder on a larger disk (root=, output=)"
    return [Finding("disk", found, wanted, "breaks", advice)]


def bytes_below(place: Path) -> int:
    """Bytes of all files below a folder; files may come and go meanwhile."""
    total = 0
    for path, _, names in os.walk(place):
        for name in names:
            try:
                total += os.lstat(os.path.join(path, name)).st_size
            except OSError:
                continue
    return total


def memory(needs: Needs) -> list[Finding]:
    """Main memory: the machine's, or the container's limit; less than needed breaks, less of it free is a note."""
    total, free = host_memory()
    if not needs.host:
        return [Finding("host memory", f"{gb(total)}, {gb(free)} available", "not known", "ok")]
    found, wanted = f"{gb(total)}, {gb(free)} available", f"{gb(needs.host)} ({needs.host_why})"
    if total < needs.host:
        advice = "use a node with more memory or a larger --mem, or fewer processes on it"
        return [Finding("host memory", found, wanted, "breaks", advice)]
    if free < needs.host:
        return [Finding("host memory", found, wanted, "warning", "other programs hold the rest; end them first")]
    return [Finding("host memory", found, wanted, "ok")]


def host_memory() -> tuple[float, float]:
    """Main memory in bytes that this process may use in all, and that is available now."""
    _, total = memory_in_use()
    return total, min(total, float(psutil.virtual_memory().available))


def memory_of(processes: Iterable[psutil.Process]) -> float:
    """Bytes of main memory of some processes together: proportional set sizes, so that shared pages count once."""
    total = 0.0
    for process in processes:
        with suppress(psutil.Error, OSError):  # it ended meanwhile
            total += process.memory_full_info().pss
    return total


def shared_memory(needs: Needs) -> list[Finding]:
    """/dev/shm, through which data loaders, NCCL and Ray pass tensors; a container has 64 MB unless told otherwise."""
    if not SHM.is_dir():
        return [Finding("/dev/shm", "not there", gb(needs.shm), "warning" if needs.shm else "ok")]
    total = shutil.disk_usage(SHM).total
    if not needs.shm or total >= needs.shm:
        return [Finding("/dev/shm", gb(total), gb(needs.shm) if needs.shm else "nothing", "ok")]
    advice = "start the container with --shm-size=16g or --ipc=host, or remount /dev/shm larger"
    return [Finding("/dev/shm", gb(total), gb(needs.shm), "breaks", advice)]


def gpus(needs: Needs) -> list[Finding]:
    """Visible GPUs against those of the config, and the driver against the CUDA of the installed torch."""
    if needs.device != "cuda":
        return []
    from safer_steer.gpus import driver_problem, driver_version, visible_gpus

    number, wanted = visible_gpus(), f"{needs.gpus} on each of {needs.nodes} node(s)"
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    found = f"{number} visible" + ("" if hidden is None else f" (CUDA_VISIBLE_DEVICES={hidden})")
    advice = "check nvidia-smi and CUDA_VISIBLE_DEVICES, or change the number in the config"
    enough = number >= needs.gpus
    findings = [Finding("GPUs", found, wanted, "ok" if enough else "breaks", "" if enough else advice)]
    if problem := driver_problem():
        findings.append(Finding("NVIDIA driver", driver_version() or "none", "a newer one", "breaks", problem))
    elif version := driver_version():
        findings.append(Finding("NVIDIA driver", version, "new enough for the installed CUDA", "ok"))
    return findings


def write_speed(place: Path, megabytes: int = 256) -> float:
    """Bytes per second that reach the disk of a folder, measured by writing so much; the file is removed."""
    import time

    block = os.urandom(2**20)
    with tempfile.NamedTemporaryFile(dir=place) as file:
        started = time.monotonic()
        for _ in range(megabytes):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        return megabytes * 2**20 / max(time.monotonic() - started, 1e-6)


def gb(size: float) -> str:
    """A size in bytes for a message."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e8 else f"{size / 1e6:,.0f} MB"
