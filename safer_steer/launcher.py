"""Runs a launcher of several processes (torchrun, accelerate, deepspeed) so that INT and TERM end it in one line.

Input: a command. Output: its exit code. The command has a session of its own and gets one TERM from here; what it and
its processes print to stderr after that is not shown. In the end nothing that it started is left: torchrun's workers
have sessions of their own, and outlive it when it is killed.
    python -m safer_steer.launcher COMMAND...
"""

if __name__ == "__main__":
    from safer_steer import interrupts

    interrupts.watch()

import contextlib
import os
import signal
import subprocess
import sys
import threading

import psutil

from safer_steer.cli import exit_code
from safer_steer.interrupts import hold_back, let_through

GRACE_S = 40.0  # torchrun gives its workers 30
LAST_WORDS_S = 2.0  # for what the command said last; others may hold its stderr open for longer


def launch(command: list[str]) -> int:
    """Runs the command to its end; stops it and all that it started when this process is interrupted."""
    hold_back()  # until what is started is below `try`: a signal between the two would leave it behind
    try:
        child = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, preexec_fn=let_through)
    except BaseException:
        let_through()
        raise
    passing = threading.Thread(target=_pass_on, args=(child,), daemon=True)
    try:
        passing.start()  # with the signals held back: they are the main thread's
        let_through()
        code = child.wait()
        passing.join(LAST_WORDS_S)
        return code
    finally:
        started: set[psutil.Process] = set()
        try:
            _end(child, started, GRACE_S)
        except KeyboardInterrupt:  # a second press, wherever it came: by force, and no third one breaks it off
            _end(child, started, 0.0)
            raise


def _pass_on(child: subprocess.Popen) -> None:
    assert child.stderr is not None, "it was opened as a pipe"
    while said := child.stderr.read1():  # type: ignore[attr-defined]
        with contextlib.suppress(OSError):
            os.write(2, said)


def _end(child: subprocess.Popen, started: set[psutil.Process], grace_s: float) -> None:
    """Ends the child's group and all that it started, by force after the grace; notes in `started` what that is."""
    started |= _started_by(child)
    _send(child, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(grace_s)
    started |= _started_by(child)
    _send(child, signal.SIGKILL)
    for process in started:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def _started_by(child: subprocess.Popen) -> set[psutil.Process]:
    try:
        return set(psutil.Process(child.pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return set()


def _send(child: subprocess.Popen, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, number)


if __name__ == "__main__":
    sys.exit(exit_code(lambda: launch(sys.argv[1:])))
