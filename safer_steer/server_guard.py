"""Watches the servers of a run while it works: one that ends, or answers nothing any more, ends the run at once.

Without it the run would call a server that is gone until its retries and its patience with an outage are spent.
"""

import threading
import time
from collections.abc import Sequence
from typing import Protocol

import httpx
import psutil

from safer_steer.deaths import MemoryLog, is_stopped
from safer_steer.interrupts import interrupt_main

LOOK_EVERY_S = 1.0
ASK_EVERY_S = 15.0
ASK_TIMEOUT_S = 15.0
ENGINE = "VLLM::"  # in the titles that vLLM gives its own processes


class Guarded(Protocol):
    """A server as the guard sees it."""

    name: str
    url: str
    silent_s: float

    @property
    def pid(self) -> int:
        """Its process, or the one that started it."""

    def exit_code(self) -> int | None:
        """Its exit status; None while it runs."""


class ServerGuard:
    """A thread that interrupts the main thread, as Ctrl-C does, when a server is gone or silent; `problem` says why.

    Silent: it takes no request for its `silent_s`, as where it is stopped or hangs. A run that does not work in the
    process's main thread is not interrupted; its calls fail.
    """

    def __init__(self, servers: Sequence[Guarded], memory: MemoryLog):
        self.servers, self.memory = servers, memory
        self.problem: str | None = None
        self.lost: dict[str, list[str]] = {}  # server -> engines of its own that vanished while it still ran
        self._children: dict[str, dict[int, str]] = {}
        self._heard: dict[str, float] = {}
        self._looked: dict[str, float] = {}
        self._done = threading.Event()
        self._main = threading.get_ident() if threading.current_thread() is threading.main_thread() else None
        self._thread = threading.Thread(target=self._watch, name="server-guard", daemon=True)

    def start(self) -> None:
        """Begins to watch, once the servers are ready."""
        self._heard = {server.name: time.monotonic() for server in self.servers}
        if self.servers:
            self._thread.start()

    def stop(self) -> None:
        """Ends the watch, before the servers are ended."""
        self._done.set()

    def _watch(self) -> None:
        asked = time.monotonic()
        while not self._done.wait(LOOK_EVERY_S):
            for server in self.servers:
                self.look(server)
            ended = [server.name for server in self.servers if server.exit_code() is not None]
            if ended:
                return self._interrupt(f"server {', '.join(ended)} ended")
            if time.monotonic() - asked >= ASK_EVERY_S:
                for server in self.servers:
                    self._ask(server)
                asked = time.monotonic()
            for server in self.servers:
                silent = asked - self._heard[server.name]
                if silent >= server.silent_s:
                    return self._interrupt(
                        f"server {server.name} has answered nothing for {silent:.0f} s{_state(server)}"
                    )

    def _ask(self, server: Guarded) -> None:
        try:
            httpx.get(f"{server.url}/models", timeout=min(ASK_TIMEOUT_S, server.silent_s), trust_env=False)
        except httpx.HTTPError:
            return
        self._heard[server.name] = time.monotonic()

    def look(self, server: Guarded) -> None:
        """Notes the memory, and engines of a server that vanish while it still runs: one that is killed takes it down.

        Called while the server starts, then by the thread; does something once a second at most.
        """
        if time.monotonic() - self._looked.get(server.name, -LOOK_EVERY_S) < LOOK_EVERY_S / 2:
            return
        self._looked[server.name] = time.monotonic()
        self.memory.sample()
        known = self._children.get(server.name, {})
        titles = {}
        try:
            for child in psutil.Process(server.pid).children(recursive=True):
                title = (child.cmdline() or [""])[0]
                if ENGINE in title:
                    titles[child.pid] = title.strip()
        except psutil.Error:
            return  # they end just now
        self.lost.setdefault(server.name, []).extend(
            f"{known[pid]} (process {pid})" for pid in known.keys() - titles.keys()
        )
        self._children[server.name] = titles

    def _interrupt(self, problem: str) -> None:
        if self._done.is_set():
            return
        self.problem = problem
        if self._main is not None:
            interrupt_main(self._main)


def _state(server: Guarded) -> str:
    """Whether a signal has stopped it."""
    try:
        processes = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
    except psutil.Error:
        return ""
    stopped = [str(item.pid) for item in processes if is_stopped(item.pid)]
    return f"; stopped by a signal: process {', '.join(stopped)}" if stopped else ""
