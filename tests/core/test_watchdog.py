"""The watchdog ends a server that goes willingly at once, and one that does not after its grace."""

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
    code = f"import watchdog; watchdog.GRACE_S = {grace}; watchdog.main([{sys.executable!r}, '-c', {server!r}])"
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=FOLDER, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == -signal.SIGKILL  # the whole group, itself included
    assert process.stdout.read() == ""  # the pipe is closed: nobody of the group is left
