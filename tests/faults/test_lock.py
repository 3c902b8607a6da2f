"""Two runs on one output folder: the second is refused by a lock that names the first and dies with it."""

import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from safer_steer import folder_lock
from safer_steer.config import Section
from safer_steer.errors import UserError
from safer_steer.folder_lock import FILE, FolderLock, hold
from safer_steer.runs import Run

NAMED = rf"is in use by process (\d+) on {re.escape(socket.gethostname())}, started 20\d\d-.*: -c .*choose another"
HOLDER = """
import sys, time
from pathlib import Path
from safer_steer.folder_lock import FolderLock
locks = [FolderLock(Path(name)) for name in sys.argv[1:]]
print("held", flush=True)
time.sleep(600)
"""


class Nothing(Section):
    """A config without values."""


@pytest.fixture
def other_process():
    """`other_process(folder, ...)`: a living process that holds the folders' locks."""
    running = []

    def start(*folders: Path) -> subprocess.Popen:
        command = [sys.executable, "-c", HOLDER, *map(str, folders)]
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert running[-1].stdout.readline() == "held\n"
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.wait()


def test_the_second_run_is_told_who_has_the_folder_and_goes_on_after_a_kill(tmp_path, other_process):
    first = other_process(tmp_path / "run")
    with pytest.raises(UserError, match=NAMED) as refused:
        Run.open(tmp_path / "run", Nothing(), stage="demo")
    assert re.search(NAMED, str(refused.value))[1] == str(first.pid)
    assert not (tmp_path / "run" / "run.json").exists()
    first.send_signal(signal.SIGKILL)
    first.wait()
    with Run.open(tmp_path / "run", Nothing(), stage="demo") as run:  # nothing to delete first
        run.finish({})
    assert str(os.getpid()) in (tmp_path / "run" / FILE).read_text()


def test_a_process_holds_a_folder_for_all_its_steps_and_gives_it_up_on_every_exit(tmp_path, other_process):
    with hold(tmp_path), Run.open(tmp_path, Nothing(), stage="one", file="one.json") as run:
        run.close()
        run.close()
        with pytest.raises(UserError, match="file not found"):
            Run.open(tmp_path, Nothing(), stage="two", inputs={"data": "nowhere"}, file="two.json")
        second = subprocess.run([sys.executable, "-c", HOLDER, str(tmp_path)], capture_output=True, text=True)
        assert f"in use by process {os.getpid()} " in second.stderr, "the steps' ends did not free the command's folder"
    with pytest.raises(ValueError, match="broken"), Run.open(tmp_path, Nothing(), stage="one", file="one.json"):
        raise ValueError("broken")
    other_process(tmp_path)


def test_a_forked_worker_that_outlives_the_run_does_not_hold_the_folder(tmp_path):
    reads, writes = os.pipe()

    def run() -> None:
        FolderLock(tmp_path)
        worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
        worker.start()
        os.write(writes, b"%d" % worker.pid)
        time.sleep(600)

    first = multiprocessing.get_context("fork").Process(target=run)
    first.start()
    worker = int(os.read(reads, 20))
    try:
        with pytest.raises(UserError, match="in use"), hold(tmp_path):
            pass
        first.kill()
        first.join()
        os.kill(worker, 0)  # still there
        with hold(tmp_path):
            pass
    finally:
        os.kill(worker, signal.SIGKILL)


def test_a_file_system_without_locks_is_said_and_the_run_goes_on(tmp_path, monkeypatch, capsys):
    def unsupported(*_: object) -> None:
        raise OSError(folder_lock.errno.ENOLCK, "No locks available")

    monkeypatch.setattr(folder_lock.fcntl, "lockf", unsupported)
    with hold(tmp_path):
        pass
    assert "has no locks (No locks available)" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"stage": "demo"}'])
def test_a_broken_run_record_is_named(text, tmp_path):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(UserError, match=r"run\.json: not a run record: .*remove the folder to start again"):
        Run.open(tmp_path, Nothing(), stage="demo")


def test_every_stage_refuses_a_folder_in_use(make_stage, entry_points, other_process):
    stages = [make_stage(name, "http://127.0.0.1:9/v1") for name in ("data_construction", "evaluation")]
    folders = [folder for folder, _ in entry_points.values()]
    first = other_process(*folders, *(stage.folder for stage in stages))
    for stage in stages:
        answer = stage()
        assert (answer.code, len(answer.errors)) == (2, 1), answer.stderr
        assert re.search(NAMED, answer.stderr)[1] == str(first.pid)
    for _, start in entry_points.values():
        with pytest.raises(UserError, match=NAMED):
            start()
