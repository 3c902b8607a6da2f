"""Ctrl-C on a real command in its own process group: once ends it cleanly, a second time at once; nothing is left."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import yaml

from safer_steer import servers
from safer_steer.interrupts import ONE_PRESS_S

FOREVER = 3600.0  # seconds that would have to be waited out, were the second Ctrl-C not heard
WILLING = ["python", "-m", "miniature.teacher", "--port", "{port}", "--faults", "hang=1.0"]
# A server that does not end on SIGTERM.
STUBBORN = (
    "import contextlib, signal, uvicorn\n"
    "from miniature import teacher\n"
    "uvicorn.Server.capture_signals = lambda self: contextlib.nullcontext()\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "teacher.main()\n"
)
# The command with as much patience for its servers; beside argv[1] lies a watchdog as patient.
PATIENT = (
    "import runpy, sys\n"
    "from safer_steer import servers\n"
    f"servers.STOP_GRACE_S = {FOREVER}\n"
    "servers.__file__, sys.argv = sys.argv[1], sys.argv[1:]\n"
    "runpy.run_module('data_construction.pipeline', run_name='__main__')\n"
)
# Stage III's launcher, its patience as long, on an engine that starts a process of its own and ignores SIGTERM.
LAUNCHER = (
    "import os, sys\n"
    "from pathlib import Path\n"
    "from safer_steer.cli import exit_code\n"
    "from training.grpo import run\n"
    f"run.STOP_GRACE_S = {FOREVER}\n"
    "folder, engine = Path(sys.argv[1]), sys.argv[2]\n"
    "path = os.pathsep.join([engine, os.environ['PYTHONPATH']])\n"
    "env = os.environ | {'PYTHONPATH': path, run.processes.MARK: run.processes.mark_of(folder)}\n"
    "sys.exit(exit_code(lambda: run.run_engine(folder, env, steps=3, done=0, stall_s=3600.0)))\n"
)
ENGINE = (
    "import pathlib, signal, subprocess, sys, time\n"
    "folder = pathlib.Path(sys.argv[1]).parent\n"
    "def told(*_):\n"
    "    (folder / 'told').touch()\n"
    "signal.signal(signal.SIGTERM, told)\n"
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\n"
    "(folder / 'up').touch()\n"
    "while True:\n"
    "    time.sleep(1)\n"
)


class Command:
    """A command in a process group of its own; all its processes are known at its end."""

    def __init__(self, *arguments: str):
        # A shell starts its background jobs with Ctrl-C ignored, and what they start inherits that.
        hearing = "import os, sys, signal as s; s.signal(s.SIGINT, s.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
        self.process = subprocess.Popen(
            [sys.executable, "-c", hearing, sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, start_new_session=True,
        )  # fmt: skip
        self._started: list[psutil.Process] = []

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Waits until it holds."""
        while not condition():
            assert self.process.poll() is None, self.process.communicate()
            self._started = psutil.Process(self.process.pid).children(recursive=True) or self._started
            time.sleep(0.1)  # a look at all processes costs more than that

    def calls(self) -> int:
        """Connections to servers that are open now."""
        connections = psutil.Process(self.process.pid).net_connections("tcp")
        return sum(connection.status == psutil.CONN_ESTABLISHED for connection in connections)

    def press_ctrl_c(self) -> None:
        """What the terminal does."""
        os.killpg(self.process.pid, signal.SIGINT)

    def end(self) -> tuple[int, str]:
        """Exit code and stderr; checks that of all that was started nothing is left."""
        _, errors = self.process.communicate()
        assert self._started
        _, alive = psutil.wait_procs(self._started, timeout=10)
        assert not alive
        return self.process.returncode, errors


def add_service(config: Path, command: list[str], serves: str) -> None:
    data = yaml.safe_load(config.read_text())
    data["services"] = {"teacher": {"command": command, "serves": serves}}
    config.write_text(yaml.safe_dump(data))


@pytest.mark.parametrize(
    ("name", "serves"), [("data_construction.pipeline", "mini-generator"), ("evaluation.run", "mini-blue")]
)
def test_once_stops_the_servers_and_says_how_to_go_on(name, serves, make_stage):
    stage = make_stage(name.partition(".")[0], "service:teacher")
    add_service(stage.config, WILLING, serves)
    run = Command("-m", name, str(stage.config))
    run.wait_for(lambda: run.calls() >= 4)
    run.press_ctrl_c()
    code, errors = run.end()
    assert code == 130
    assert errors.splitlines()[-1] == "interrupted; run the same command again to continue from here"
    assert "Traceback" not in errors


def test_twice_does_not_wait_for_a_server_that_will_not_end(make_stage, tmp_path):
    stage = make_stage("data_construction", "service:teacher")
    add_service(stage.config, ["python", "-c", STUBBORN, *WILLING[3:]], "mini-generator")
    watchdog = Path(servers.__file__).with_name("watchdog.py").read_text()
    told = tmp_path / "told"
    for old, new in (
        ("GRACE_S = 10.0\n", f"GRACE_S = {FOREVER}\n"),
        ("    def end(*_: object) -> None:\n", f"    def end(*_):\n        open({str(told)!r}, 'w')\n"),
    ):
        assert watchdog.count(old) == 1, "else the test would pass without what it is about"
        watchdog = watchdog.replace(old, new)
    (tmp_path / "watchdog.py").write_text(watchdog)
    run = Command("-c", PATIENT, str(tmp_path / "servers.py"), str(stage.config))
    run.wait_for(lambda: run.calls() >= 4)
    run.press_ctrl_c()
    run.wait_for(told.exists)  # it now waits for the server, which does not end
    time.sleep(2 * ONE_PRESS_S)  # a press that follows at once belongs to the first
    run.press_ctrl_c()
    code, errors = run.end()
    assert code == 130
    assert errors.splitlines()[-1] == "interrupted; run the same command again to continue from here"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_twice_ends_the_engine_of_grpo_and_what_it_started(number, tmp_path):
    engine = tmp_path / "engine" / "safer_steer_verl"
    engine.mkdir(parents=True)
    (engine / "__init__.py").touch()
    (engine / "main.py").write_text(ENGINE)
    (tmp_path / "log").mkdir()
    run = Command("-c", LAUNCHER, str(tmp_path), str(engine.parent))
    run.wait_for((tmp_path / "up").exists)
    run.wait_for(lambda: len(run._started) == 2)
    os.killpg(run.process.pid, number)
    run.wait_for((tmp_path / "told").exists)
    os.killpg(run.process.pid, number)
    code, errors = run.end()
    assert code == 130, errors
    assert errors.splitlines()[-1] == "interrupted; run the same command again to continue from here"
