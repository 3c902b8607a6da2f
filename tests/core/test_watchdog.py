"""The watchdog ends a server that goes willingly at once, and one that does not after its grace."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path("safer_steer").resolve()
WILLING = "import time; print('up', flush=True); time.sleep(600)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {WILLING}"


@pytest.mark.parametrize(("server", "grace"), [(WILLING, 3600.0), (STUBBORN, 0.2)])
def test_a_server_is_ended_without_waiting_for_more_than_it_needs(server, grace):
    command = [sys.executable, "-c", server]
    code = f"import os, watchdog; watchdog.GRACE_S = {grace}; watchdog.main(os.getppid(), {command!r})"
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=FOLDER, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == -signal.SIGKILL  # the whole group, itself included
    assert process.stdout.read() == ""  # the pipe is closed: nobody of the group is left


def test_no_server_is_started_for_a_run_that_is_gone_already():
    command = [sys.executable, "-S", "watchdog.py", str(os.getpid() + 1), sys.executable, "-c", "print('up')"]
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, start_new_session=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (128 + signal.SIGTERM, "", "")
