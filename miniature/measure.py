"""Runs one stage and records how long it took and how much memory its whole process tree held at most.

Input: a name and a command. Output: `<root>/stages/<name>.json` {"seconds", "peak_rss_mb", "done"}; the command's
exit code.
    python -m miniature.measure NAME --root DIR -- COMMAND...
A stage that was interrupted adds up over its runs; one that is done keeps its record. Memory is the sum of
proportional set sizes (pages shared by several processes count once), sampled every second or less often, so that
measuring takes at most a thirtieth of one core; it is never less than the largest single process had.
"""

if __name__ == "__main__":  # before the imports below, which take seconds
    from safer_steer import interrupts

    interrupts.watch()

import argparse
import contextlib
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from safer_steer.cli import exit_code
from safer_steer.machine import memory_of
from safer_steer.store import write_atomic

SAMPLE_EVERY_S = 1.0


def watch_memory(child: subprocess.Popen, seen: Callable[[float], None]) -> None:
    """Waits for a child's end; calls `seen` with the memory of its process tree, in MiB, now and then."""
    try:
        process = psutil.Process(child.pid)
        while child.poll() is None:
            sampled = time.monotonic()
            seen(memory_of([process, *process.children(recursive=True)]) / 2**20)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(max(SAMPLE_EVERY_S, 30 * (time.monotonic() - sampled)))
    except psutil.NoSuchProcess:
        child.wait()


def _end(child: subprocess.Popen) -> None:
    """Passes an interrupt on to the stage, which stops what it started; a second one too."""
    child.terminate()
    try:
        child.wait()
    except KeyboardInterrupt:
        child.terminate()
        child.wait()


def measure(command: list[str], record_file: Path) -> int:
    """Runs the command to its end; keeps the record up to date while it runs.

    Returns:
        The command's exit code.
    """
    old = (
        json.loads(record_file.read_text(encoding="utf-8"))
        if record_file.exists()
        else {"seconds": 0.0, "peak_rss_mb": 0}
    )
    started, peak = time.monotonic(), float(old["peak_rss_mb"])

    def seen(memory_mb: float) -> None:
        nonlocal peak
        peak = max(peak, memory_mb)
        write(done=False)

    def write(done: bool) -> None:
        if old.get("done"):
            return
        seconds = round(old["seconds"] + time.monotonic() - started, 1)
        write_atomic(record_file, json.dumps({"seconds": seconds, "peak_rss_mb": round(peak), "done": done}) + "\n")

    child = subprocess.Popen(command)
    try:
        watch_memory(child, seen)
    except KeyboardInterrupt:
        _end(child)
        raise
    code = child.wait()
    peak = max(peak, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)  # a short command had few samples
    write(done=code == 0)
    return code if code >= 0 else 128 - code


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("--root", required=True)
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()
    record = Path(arguments.root, "stages", f"{arguments.name}.json")
    sys.exit(exit_code(lambda: measure(arguments.command, record)))


if __name__ == "__main__":
    main()
