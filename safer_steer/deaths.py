"""How a process of a run ended and what that means: a signal, the memory at that moment, what to change.

A process that the kernel ends for want of memory says nothing, and its parents say it badly. What is known is its exit
status, how full the memory was, and the kernel's own count.
"""

import re
import signal
import time
from collections import deque
from pathlib import Path

import psutil

from safer_steer.failures import AGAIN

KEPT_S = 30.0  # a death is noticed seconds after the memory is free again
SHELL = 128  # a shell, and our watchdog, say 128 + N of a process that signal N ended
# The kernel's counts of processes that it ended for want of memory: of this container, of the machine.
COUNTS = (Path("/sys/fs/cgroup/memory.events"), Path("/proc/vmstat"))
# (limit, in use) of this container, cgroup v2 and v1.
LIMITS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


class MemoryLog:
    """How full the machine's memory was in the last seconds. Call `sample` about once per second."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float, float]] = deque()  # time, bytes in use, bytes in all
        self._kills = kernel_kills()
        self.sample()

    def sample(self) -> None:
        """Notes what is in use now."""
        now = time.monotonic()
        self._seen.append((now, *memory_in_use()))
        while now - self._seen[0][0] > KEPT_S and len(self._seen) > 1:
            self._seen.popleft()

    def kernel_killed(self) -> bool:
        """Whether the kernel has ended a process, of this run or of another, for want of memory since the start."""
        return kernel_kills() > self._kills

    def words(self) -> str:
        """The fullest moment of the last seconds."""
        _, used, total = max(self._seen, key=lambda seen: seen[1] / seen[2])
        return f"{used / 2**30:.1f} of {total / 2**30:.1f} GiB of this machine's memory were in use at that moment"


def memory_in_use() -> tuple[float, float]:
    """Bytes in use and bytes in all, of the container where it has a limit, else of the machine."""
    now = psutil.virtual_memory()
    for limit, used in LIMITS:
        try:
            most = Path(limit).read_text(encoding="utf-8").strip()
            if most.isdigit() and 0 < int(most) < now.total:
                return float(Path(used).read_text(encoding="utf-8")), float(most)
        except (OSError, ValueError):
            continue
    return float(now.total - now.available), float(now.total)


def kernel_kills() -> int:
    """How many processes the kernel has ended for want of memory, as far as it lets us see."""
    total = 0
    for path in COUNTS:
        try:
            found = re.search(r"^oom_kill (\d+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        except OSError:
            continue
        total += int(found[1]) if found else 0
    return total


def is_stopped(pid: int) -> bool:
    """Whether a signal (SIGSTOP, SIGTSTP) has stopped a process; False for one that is gone."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    except psutil.Error:
        return False


def signal_of(code: int | None) -> int | None:
    """The signal that ended a process, from its exit status (-N, or 128 + N of a shell); None where it was none."""
    if code is None:
        return None
    number = -code if code < 0 else code - SHELL
    return number if number in {item.value for item in signal.Signals} else None


def cause_of_death(code: int | None, memory: MemoryLog | None, advice: str) -> str:
    """What a process's end means, as part of a sentence: "was killed (signal 9), ...".

    Args:
        code: its exit status; None where nobody could see it, as of a process that just vanished.
        memory: of the machine that it ran on; None where it was another machine.
        advice: what to change so that less memory is needed.
    """
    number = signal_of(code)
    if number not in (None, signal.SIGKILL):
        return f"was ended by signal {number} ({signal.Signals(number).name}); see the log"
    if code is not None and number is None:
        return f"ended with code {code}; see the log"
    how = "was killed (signal 9)" if code is not None else "vanished without a word, as one that is killed (signal 9)"
    if memory is not None and memory.kernel_killed():
        return f"{how}: the kernel was out of memory and ended it; {memory.words()}; {advice}, {AGAIN}"
    at = memory.words() if memory is not None else "how full that machine's memory was is not known here"
    return f"{how}, mostly the kernel's doing when memory runs out; {at}; if it was that: {advice}; {AGAIN}"
