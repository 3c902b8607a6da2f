"""Runs steps side by side: each when what it needs is done, at most `jobs` at once, each with a log of its own.

A finished step is not started; a failing one stops what depends on it and nothing else. Ctrl-C and SIGTERM end the
commands that were started here, which are resumable by themselves.
"""

import asyncio
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from reproduce.step import Step
from safer_steer import interrupts
from safer_steer.errors import UserError

TAIL_LINES = 12
GRACE_S = 60.0  # a stage stops its servers and engine processes first


@dataclass
class Report:
    """Names of steps: found finished, finished now, failed (with the reason), not started because of these."""

    before: list[str] = field(default_factory=list)
    now: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    blocked: list[str] = field(default_factory=list)
    interrupted: bool = False

    @property
    def ok(self) -> bool:
        """Whether everything is done."""
        return not (self.failed or self.blocked or self.interrupted)


class Runner:
    """One run over a list of steps; the order of the list is the order of starting where several could.

    `anew` starts steps that are finished too.
    """

    def __init__(self, steps: Sequence[Step], jobs: int, say: Callable[[str], None] = print, anew: bool = False):
        self._waiting = {step.name: step for step in steps}
        self._jobs, self._say, self._total, self._anew = jobs, say, len(steps), anew
        self._running: dict[asyncio.Task[str | None], Step] = {}
        self._done: set[str] = set()
        self._stop = asyncio.Event()
        self.report = Report()

    async def run(self) -> Report:
        """Runs everything that can be run.

        Raises:
            UserError: a finished step was made by another command or config, or from what is to be made anew; nothing
                is started then.
        """
        for step in list(self._waiting.values()):
            if step.done() and not self._anew:
                step.check_stamp()
                if lost := [need for need in step.needs if need not in self._done]:
                    raise UserError(
                        f"{step.name} is finished, but {', '.join(lost)}, from which it was made, is not; remove "
                        f"{step.output} too, then it is made anew"
                    )
                self.report.before.append(step.name)
                self._done.add(step.name)
                del self._waiting[step.name]
        if self.report.before:
            self._say(f"{len(self.report.before)} of {self._total} steps are finished already")
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop.set)
        try:
            await self._loop()
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
            interrupts.take_back(heard=self._stop.is_set())
        self.report.blocked = list(self._waiting) if not self.report.interrupted else []
        return self.report

    async def _loop(self) -> None:
        stop = asyncio.create_task(self._stop.wait())
        while not self._stop.is_set():
            self._start_ready()
            if not self._running:
                break
            await asyncio.wait({*self._running, stop}, return_when=asyncio.FIRST_COMPLETED)
            self._collect()
        if self._stop.is_set():
            self.report.interrupted = True
            self._say(f"interrupted: ending {', '.join(step.name for step in self._running.values()) or 'nothing'}")
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)
        stop.cancel()

    def _start_ready(self) -> None:
        for step in list(self._waiting.values()):
            if len(self._running) >= self._jobs:
                return
            if self._done.issuperset(step.needs):
                del self._waiting[step.name]
                step.stamp()
                self._say(f"{time.strftime('%H:%M:%S')} start {step.name}; log {step.log}")
                self._running[asyncio.create_task(run_step(step))] = step

    def _collect(self) -> None:
        for task in [task for task in self._running if task.done()]:
            step, problem = self._running.pop(task), task.result()
            if problem is None and not step.done():
                problem = "ended with 0, but its records do not say that it is finished"
            if problem is None:
                self._done.add(step.name)
                self.report.now.append(step.name)
                self._say(f"{time.strftime('%H:%M:%S')} done  {step.name} ({len(self._done)} of {self._total})")
            else:
                self.report.failed[step.name] = problem
                self._say(f"{time.strftime('%H:%M:%S')} FAILED {step.name}: {problem}\n{tail(step.log)}")


async def run_step(step: Step) -> str | None:
    """Runs one command to its end; None, or why it failed. Cancelled, it ends the command and what that left behind."""
    step.log.parent.mkdir(parents=True, exist_ok=True)
    with step.log.open("a", encoding="utf-8") as log:
        log.write(f"$ {shlex.join(step.command)}\n")
        log.flush()
        # A session of its own: Ctrl-C reaches it through us, once, and its whole group can be ended.
        process = await asyncio.create_subprocess_exec(
            *step.measured(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        try:
            code = await process.wait()
        except asyncio.CancelledError:
            await _end(process)
            raise
    return None if code == 0 else f"exit code {code}, see {step.log}"


async def _end(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.terminate()  # the measuring process passes it on to the stage, which cleans up
    with suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), GRACE_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


def tail(path: Path, lines: int = TAIL_LINES) -> str:
    """The last lines of a log, indented."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    return "\n".join(f"    {line[:300]}" for line in text.replace("\r", "\n").splitlines()[-lines:])
