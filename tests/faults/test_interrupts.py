"""Any number of INT and TERM at any moment, to a command, its group or both: one line, exit code 130, nothing else.

The moments are seeded and printed. A command may end before it is pressed: then its own code stands.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from safer_steer.interrupts import LINE

SEED = int(os.environ.get("INTERRUPT_SEED", "0"))
COMMANDS = {
    "data_construction": ["bash", "scripts/run_data_construction.sh"],
    "sft": ["bash", "scripts/run_sft.sh"],
    "grpo": ["bash", "scripts/run_grpo.sh"],
    "evaluation": ["bash", "scripts/run_evaluation.sh"],
    "export": ["bash", "scripts/run_export.sh"],
    "module": [sys.executable, "-m", "evaluation.run"],
    "quickstart": ["bash", "scripts/quickstart.sh", "--root"],
    "reproduce": ["bash", "scripts/reproduce.sh", "miniature", "--root"],
}
# Swallows an interrupt in __del__ again and again, prints on its way out, and would leave an atexit traceback.
HOSTILE = (
    "from safer_steer import interrupts\n"
    "interrupts.watch()\n"
    "import atexit, sys, time\n"
    "from safer_steer.cli import exit_code\n"
    "class Busy:\n"
    "    def __del__(self):\n"
    "        time.sleep(0.3)\n"
    "def work():\n"
    "    print('up', flush=True)\n"
    "    try:\n"
    "        while True:\n"
    "            Busy()\n"
    "    finally:\n"
    "        print('noise', file=sys.stderr)\n"
    "        time.sleep(0.5)\n"
    "        1 / 0\n"
    "atexit.register(lambda: 1 / 0)\n"
    "sys.exit(exit_code(work))\n"
)


# The launcher on a machine so busy that a second press comes before the first one's work is done.
BUSY_LAUNCHER = (
    "from safer_steer import interrupts\n"
    "interrupts.watch()\n"
    "import sys, time\n"
    "from safer_steer import launcher\n"
    "from safer_steer.cli import exit_code\n"
    "look, start = launcher._started_by, launcher.subprocess.Popen\n"
    "launcher._started_by = lambda child: time.sleep(1.0) or look(child)\n"
    "launcher.subprocess.Popen = lambda *a, **k: (start(*a, **k), time.sleep({starting}))[0]\n"
    "sys.exit(exit_code(lambda: launcher.launch(sys.argv[1:])))\n"
)


def start(command: list[str]) -> subprocess.Popen:
    """The command in a group of its own, which hears Ctrl-C as in a terminal."""
    hearing = "import os, sys, signal as s; s.signal(s.SIGINT, s.SIG_DFL); os.execvp(sys.argv[1], sys.argv[1:])"
    return subprocess.Popen(
        [sys.executable, "-c", hearing, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


def in_our_hands(process: subprocess.Popen) -> bool:
    """Whether TERM is caught or held back: bash and Python themselves need a few milliseconds to get there."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except FileNotFoundError:
        return True
    masks = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith(("SigCgt", "SigBlk"))]
    return any(mask >> (signal.SIGTERM - 1) & 1 for mask in masks)


def press(process: subprocess.Popen, rng: random.Random) -> list[str]:
    """One to four signals, some milliseconds apart, to the process, its group or both."""
    sent = []
    for _ in range(rng.randint(1, 4)):
        number, to = rng.choice((signal.SIGINT, signal.SIGTERM)), rng.choice(("process", "group", "both"))
        try:
            if to != "group":
                os.kill(process.pid, number)
            if to != "process":
                os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        sent.append(f"{number.name} to {to}")
        time.sleep(rng.choice((0.0, 0.002, 0.02, 0.3)))
    return sent


def check(process: subprocess.Popen, told: str, by_itself: tuple[int, ...] = ()) -> None:
    """It ended with 130 and the line, once and last; or by itself, before it was pressed, with one of these codes."""
    _, errors = process.communicate(timeout=240)
    if process.returncode in by_itself and LINE not in errors:
        return
    assert (process.returncode, errors.count(LINE)) == (130, 1), f"{told}: {process.returncode}\n{errors[-3000:]}"
    assert errors.endswith(LINE), f"{told}\n{errors[-3000:]}"
    for noise in ("Traceback", "Exception ignored", "Error:"):
        assert noise not in errors, f"{told}\n{errors[-3000:]}"


def interrupted_at(command: list[str], wait: float, rng: random.Random, told: str, by_itself: tuple[int, ...]) -> None:
    process = start(command)
    while not in_our_hands(process):
        time.sleep(0.002)
    time.sleep(wait)
    check(process, f"{told}, {press(process, rng)}", by_itself)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_starts(name, tmp_path):
    rng = random.Random(f"{SEED} {name}")
    wait = rng.uniform(0.0, 2.0)
    print(f"INTERRUPT_SEED={SEED} {name}: after {wait:.2f} s")
    command = COMMANDS[name]
    command = [*command, str(tmp_path)] if command[-1] == "--root" else [*command, f"root={tmp_path}"]
    by_itself = () if name == "reproduce" else (0, 2)  # it works for minutes: only a press ends it
    interrupted_at(command, wait, rng, f"INTERRUPT_SEED={SEED}, {wait:.2f} s", by_itself)


@pytest.mark.parametrize("presses", [1, 5])
def test_code_that_swallows_interrupts_and_makes_noise(presses):
    process = start([sys.executable, "-c", HOSTILE])
    assert process.stdout.readline() == "up\n"
    for number in range(presses):
        os.killpg(process.pid, (signal.SIGINT, signal.SIGTERM)[number % 2])
        time.sleep(0.05)
    check(process, f"{presses} presses")


@pytest.mark.parametrize("starting", [0.0, 2.0])
def test_a_launcher_and_its_processes_say_one_line_and_none_is_left(starting):
    """Also when pressed while it starts them. The command dies at once; its worker, in its own session, is deaf."""
    worker = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    )
    loud = (
        "import subprocess, sys, time\n"
        f"worker = subprocess.Popen([sys.executable, '-c', {worker!r}], start_new_session=True, stdout=-1)\n"
        "worker.stdout.readline(); print(worker.pid, flush=True); time.sleep(600)"
    )
    process = start([sys.executable, "-c", BUSY_LAUNCHER.format(starting=starting), sys.executable, "-c", loud])
    started = psutil.Process(int(process.stdout.readline()))
    for _ in range(2):
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.3)
    check(process, "launcher")
    psutil.wait_procs([started], timeout=60)
    assert not started.is_running()
