"""Runs a server and ends it, with everything it started, when the run that wanted it is gone, even by `kill -9`
(Linux).

Input: the run's process id and a command. Output: the command's exit code, 128 + N when signal N ended it.
    python -S watchdog.py PID COMMAND...
The kernel tells this process of its parent's end; a server itself may ignore signals while it starts. Imports nothing
heavy.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time

PR_SET_PDEATHSIG = 1
GRACE_S = 10.0


def ended(child: int) -> bool:
    """Whether a child process has ended."""
    try:
        return os.waitpid(child, os.WNOHANG) != (0, 0)
    except ChildProcessError:  # its end was seen before
        return True


def main(run: int, command: list[str]) -> int:
    """Starts the command in this process's group and waits for its end, or for SIGTERM; `run` is its parent's id."""
    server: subprocess.Popen | None = None

    def end(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.killpg(0, signal.SIGTERM)
        deadline = time.monotonic() + GRACE_S
        # Not server.wait(): the wait below, which this interrupts, holds its lock, and the grace would always run out.
        while server and time.monotonic() < deadline and not ended(server.pid):
            time.sleep(0.05)
        os.killpg(0, signal.SIGKILL)

    signal.signal(signal.SIGTERM, end)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != run:  # it ended before the kernel was asked
        return 128 + signal.SIGTERM
    server = subprocess.Popen(command)
    code = server.wait()
    return code if code >= 0 else 128 - code  # as a shell tells of a signal


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
