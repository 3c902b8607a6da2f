"""Services: ours and no other's, ready or a clear error, and stopped whatever happens."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import httpx
import psutil
import pytest

from safer_steer import server_guard
from safer_steer.errors import UserError
from safer_steer.llm import EndpointConfig
from safer_steer.servers import ServiceConfig, start_services, with_service_urls

TEACHER = ServiceConfig(command=["python", "-m", "miniature.teacher", "--port", "{port}"], serves="mini-judge")


def test_a_service_serves_and_is_gone_afterwards(tmp_path):
    with start_services({"teacher": TEACHER}, tmp_path) as urls:
        endpoint = with_service_urls(EndpointConfig(model="mini-judge", base_url="service:teacher"), urls)
        assert "mini-judge" in httpx.get(f"{endpoint.base_url}/models").text
    with pytest.raises(httpx.HTTPError):
        httpx.get(f"{endpoint.base_url}/models")


def test_a_child_that_dies_is_reported_with_its_log(tmp_path):
    broken = ServiceConfig(command=["python", "-c", "raise SystemExit('no such model')"], serves="m")
    with (
        pytest.raises(UserError, match=r"ended with code 1; .* no such model \(while starting\)"),
        start_services({"broken": broken}, tmp_path),
    ):
        pass


def teacher_below(parent: psutil.Process) -> psutil.Process:
    """The server itself, below its watchdog."""
    return next(p for p in parent.children(recursive=True) if p.cmdline()[1:3] == ["-m", "miniature.teacher"])


def meanwhile(suffer: Callable[[], None]) -> None:
    """What befalls the server while the run works."""
    suffer()
    time.sleep(500)


@pytest.mark.parametrize("watched", [True, False], ids=["command", "program"])
def test_a_run_in_the_background_of_a_shell_is_ended_too(watched, tmp_path):
    """There SIGINT is ignored. One of our commands, which watches for signals, does not take it for the user's."""
    code = (
        f"from safer_steer import interrupts; {watched} and interrupts.watch()\n"
        "import sys, time; import psutil; from safer_steer.cli import exit_code\n"
        "from safer_steer.servers import ServiceConfig, start_services\n"
        "command = ['python', '-m', 'miniature.teacher', '--port', '{port}']\n"
        "def run():\n"
        "    with start_services({'teacher': ServiceConfig(command=command, serves='mini-judge')}, sys.argv[1]):\n"
        "        below = psutil.Process().children(recursive=True)\n"
        "        [p.kill() for p in below if 'watchdog.py' not in ' '.join(p.cmdline())]\n"
        "        time.sleep(500)\n"
        "sys.exit(exit_code(run))\n"
    )
    command = ["bash", "-c", 'trap "" INT; exec "$@"', "bash", sys.executable, "-c", code, str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 2, run.stderr
    assert "error: server teacher was killed (signal 9)" in run.stderr
    assert "interrupted" not in run.stderr


def test_a_server_that_is_stopped_ends_the_run_when_it_was_silent_for_too_long(tmp_path, monkeypatch):
    monkeypatch.setattr(server_guard, "ASK_EVERY_S", 0.5)
    service = TEACHER.model_copy(update={"silent_s": 1.5})
    with (
        pytest.raises(UserError, match=r"server teacher has answered nothing for \d+ s; stopped by a signal: process"),
        start_services({"teacher": service}, tmp_path),
    ):
        meanwhile(teacher_below(psutil.Process()).suspend)


def test_an_engine_that_is_killed_takes_its_server_with_it_and_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(server_guard, "LOOK_EVERY_S", 0.2)
    code = (
        "import os, subprocess, sys, time\n"
        "engine = subprocess.Popen(['sleep', '600'], executable='/bin/sleep')\n"
        "engine = subprocess.Popen(['VLLM::EngineCore', '600'], executable='/bin/sleep')\n"
        "time.sleep(1.5); engine.kill(); engine.wait(); time.sleep(1.5)\n"
        "raise SystemExit('Engine core initialization failed. Failed core proc(s): {}')\n"
    )
    broken = ServiceConfig(command=["python", "-c", code], serves="m")
    with (
        pytest.raises(UserError, match=r"its process VLLM::EngineCore \(process \d+\) vanished without a word.* GiB"),
        start_services({"broken": broken}, tmp_path),
    ):
        pass


def test_a_server_of_another_model_is_not_ours(tmp_path):
    for seconds in (6.0, 60.0, 600.0):  # a busy machine has not started it in less
        wrong = TEACHER.model_copy(update={"serves": "other-model", "startup_s": seconds})
        with (
            pytest.raises(UserError, match=r"did not serve 'other-model'.* raise startup_s") as raised,
            start_services({"teacher": wrong}, tmp_path),
        ):
            pass
        if "mini-judge" in str(raised.value):
            break
    assert "mini-judge" in str(raised.value)
    assert not [p for p in psutil.Process().children(recursive=True) if "miniature.teacher" in " ".join(p.cmdline())]


def test_a_killed_run_leaves_no_server_behind(tmp_path):
    code = (
        "import sys, time; from safer_steer.servers import ServiceConfig, start_services\n"
        "command = ['python', '-m', 'miniature.teacher', '--port', '{port}']\n"
        "config = ServiceConfig(command=command, serves='mini-judge')\n"
        "with start_services({'teacher': config}, sys.argv[1]) as urls:\n"
        "    print(urls['teacher'], flush=True); time.sleep(60)\n"
    )
    run = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    url = run.stdout.readline().strip()
    assert "mini-judge" in httpx.get(f"{url}/models").text
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        try:
            httpx.get(f"{url}/models", timeout=2)
        except httpx.HTTPError:
            return
        time.sleep(0.2)
    pytest.fail("the server outlived its run")
