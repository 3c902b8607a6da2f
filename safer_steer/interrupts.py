"""INT and TERM end a command with one line and exit code 130: at any moment, however many come, to it or to its group.

`watch` belongs before a command's heavy imports. Until `run` is called, the first signal ends the process at once.
While `run` works, the first one raises KeyboardInterrupt, so that everything that was started is stopped; from then on
nothing that libraries print on their way out is shown. A second one cuts the stopping short. At the end the one line
is written and the process is gone, without another word from the interpreter's own shutdown. Processes that a watching
command starts say nothing: it speaks for them. Imports nothing heavy.
"""

import atexit
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType

CODE = 130
LINE = "interrupted; run the same command again to continue from here\n"
SPEAKER = "SAFER_STEER_SPEAKER"  # pid of the process that writes the line, for those that it starts
ONE_PRESS_S = 0.2  # what follows so soon belongs to the first signal: to a process and then to its group
AGAIN_S, TRIES = 0.05, 60  # to interrupt code in which Python swallows exceptions
LATE_S = 60.0  # stopping takes less; so an interrupt was lost in a library, and comes again
SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SWALLOWING = ("__del__", "_removeHandlerRef", "_cleanup", "_shutdown")  # an exception in these is only printed


class _Watch:
    """The state of one process: whether it works, since when it stops, and where the line goes."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.working = False
        self.since = 0.0
        self.presses = self.tries = 0
        self.errors = 2
        self.causes: list[Callable[[], str | None]] = []

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """INT or TERM."""
        if not self.working:
            self.end()
        if self.presses and time.monotonic() - self.since < ONE_PRESS_S:
            return
        self.presses += 1
        if self.presses == 1:
            self.since = time.monotonic()
            for problem in filter(None, [cause() for cause in self.causes]):
                os.write(2, f"error: {problem}\n".encode())
            self.errors = _silence()
        if self.presses <= 2:  # a third one must not break off the killing of what is left
            self.interrupt(number, frame)

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """Raises KeyboardInterrupt where it will be heard; else tries again in a moment, and at last ends at once."""
        if _is_swallowed(frame):
            self.tries += 1
            if self.tries > TRIES:
                self.end()
            signal.setitimer(signal.ITIMER_REAL, AGAIN_S)
            return
        signal.setitimer(signal.ITIMER_REAL, LATE_S)
        raise KeyboardInterrupt

    def end(self) -> None:
        """Says the line, unless another process does, and ends this one; what comes meanwhile does not say it again."""
        _ignore()
        if os.getpid() == self.pid and os.environ.get(SPEAKER) == str(self.pid):
            fresh = "\r\033[2K" if os.isatty(self.errors) else ""  # a progress bar may stand in the line
            with contextlib.suppress(OSError):
                os.write(self.errors, (fresh + LINE).encode())
        os._exit(CODE)


_watch: _Watch | None = None


def watch() -> None:
    """From now on INT and TERM end this command in one line; those that the starting script held back come now."""
    global _watch
    if _watch is not None:
        return
    _watch = _Watch()
    os.environ.setdefault(SPEAKER, str(os.getpid()))
    for number in SIGNALS:
        signal.signal(number, _watch.on_signal)
    signal.signal(signal.SIGALRM, _watch.interrupt)
    atexit.register(_ignore)  # the first to be registered is the last to be called
    let_through()


def run(work: Callable[[], int]) -> int:
    """Calls `work`; ends the process with the line when a signal came, whatever `work` made of it.

    Where `watch` was not called (a program that only uses our functions), INT and TERM raise KeyboardInterrupt, and the
    line is written by the way.
    """
    if _watch is None:
        return _run_unwatched(work)
    _watch.working = True
    try:
        code = work()
    except BaseException:
        if _watch.presses:
            _watch.end()
        raise
    finally:
        _watch.working = False
        signal.setitimer(signal.ITIMER_REAL, 0)
    if _watch.presses:
        _watch.end()
    return code


def ask_first(cause: Callable[[], str | None]) -> None:
    """When the first signal comes, `cause` is asked what it is for, and what it answers is written: a launcher ends the
    other processes with the same signal as a user does.
    """
    if _watch is not None:
        _watch.causes.append(cause)


def interrupt_main(thread: int) -> None:
    """Raises KeyboardInterrupt in the main thread for the command's own reasons; it is not counted as a user's signal.

    Args:
        thread: the main thread's ident.
    """
    if _watch is not None:
        return signal.pthread_kill(thread, signal.SIGALRM)
    # A run that a shell started in the background ignores SIGINT; `run` handles SIGTERM like it.
    handled = signal.getsignal(signal.SIGTERM) is signal.default_int_handler
    return signal.pthread_kill(thread, signal.SIGTERM if handled else signal.SIGINT)


def hold_back() -> None:
    """Signals of this thread wait from now on; a process that is started meanwhile must let them through itself."""
    signal.pthread_sigmask(signal.SIG_BLOCK, (*SIGNALS, signal.SIGALRM))


def let_through() -> None:
    """The opposite of `hold_back`: a signal that waited is heard in this call."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (*SIGNALS, signal.SIGALRM))


def take_back(*, heard: bool) -> None:
    """After other handlers stood in: ours again; `heard` says that a signal came meanwhile, and the command ends."""
    if _watch is None:
        return
    for number in SIGNALS:
        signal.signal(number, _watch.on_signal)
    if heard and not _watch.presses:
        _watch.presses, _watch.since, _watch.errors = 1, time.monotonic(), _silence()


def _run_unwatched(work: Callable[[], int]) -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return work()
    except KeyboardInterrupt:
        sys.stderr.write(LINE)
        return CODE


def _silence() -> int:
    """Points stdout and stderr to nowhere; returns a copy of stderr."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    return kept


def _is_swallowed(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_name in _SWALLOWING:
            return True
        frame = frame.f_back
    return False


def _ignore() -> None:
    """The work is done and the exit code stands: what comes now changes nothing."""
    for number in (*SIGNALS, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)
