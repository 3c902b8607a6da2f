"""A command that is run and measured: seconds, peak main memory of its process tree, peak memory of each GPU."""

import os
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from miniature.measure import watch_memory


@dataclass(frozen=True)
class Ran:
    """What became of a command; `said` is the end of what it printed."""

    code: int
    seconds: float
    peak: float  # bytes of main memory
    gpu_peak: float  # bytes of the fullest GPU, 0 without one
    said: str

    @property
    def error(self) -> str:
        """The command's own error line, or its last lines."""
        lines = [line.strip() for line in self.said.splitlines() if line.strip()]
        errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        return errors[-1] if errors else " | ".join(lines[-3:])


def run(command: list[str], log: Path, environment: Mapping[str, str], gpu: bool = False) -> Ran:
    """Runs a command to its end; Ctrl-C ends it too."""
    log.parent.mkdir(parents=True, exist_ok=True)
    started, peak, gpu_peak = time.monotonic(), 0.0, 0.0

    def seen(memory_mb: float) -> None:
        nonlocal peak, gpu_peak
        peak, gpu_peak = max(peak, memory_mb * 2**20), max(gpu_peak, _gpu_bytes() if gpu else 0.0)

    with log.open("ab") as out:
        begin = out.tell()
        child = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **environment})
        try:
            watch_memory(child, seen)
        except BaseException:
            child.terminate()
            child.wait()
            raise
    with log.open("rb") as said:
        said.seek(begin)
        text = said.read().decode("utf-8", errors="replace")
    return Ran(child.returncode, time.monotonic() - started, peak, gpu_peak, text[-20_000:])


def _gpu_bytes() -> float:
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return 0.0
    return max((float(line) * 2**20 for line in said.split() if line.isdigit()), default=0.0)
