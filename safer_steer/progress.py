"""Progress of long work: a live bar on a terminal, and a line now and then in a log file."""

import sys
import time
import weakref
from types import TracebackType
from typing import Protocol, Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

LOG_EVERY_S = 15.0


class Noted(Protocol):
    """Something that says in a few words how it stands, "" when there is nothing to say."""

    def note(self) -> str:
        """The words."""


_noted: weakref.WeakSet[Noted] = weakref.WeakSet()


def show_note(source: Noted) -> None:
    """Shows a source's note next to every progress bar of this process, for as long as the source lives."""
    _noted.add(source)


class ProgressBar:
    """Counts done items, with rate, a short note (such as outcome counts) and, where the total is known, an estimate of
    the time left.
    """

    def __init__(self, label: str, total: int | None, done: int = 0):
        self.label, self.total, self.done = label, total, done
        self._first, self._note, self._start, self._logged = done, "", time.monotonic(), time.monotonic()
        self._bar: Progress | None = None
        if sys.stderr.isatty():
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
            )
            self._bar = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), transient=True)
            self._task = self._bar.add_task(label, total=total, completed=done, note="")

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()
        elif self.done > self._first or kind is None:
            self._log()

    def advance(self, note: str = "", by: int = 1) -> None:
        """Counts `by` more items and shows the note."""
        self.done, self._note = self.done + by, note
        if self._bar:
            self._bar.update(self._task, completed=self.done, note=self._words())
        elif time.monotonic() - self._logged > LOG_EVERY_S:
            self._log()

    def skip(self) -> None:
        """Counts one more item that an earlier run did: it adds nothing to the rate."""
        self.done, self._first = self.done + 1, self._first + 1
        if self._bar:
            self._bar.update(self._task, completed=self.done)

    def _log(self) -> None:
        self._logged = time.monotonic()
        elapsed = self._logged - self._start
        rate = (self.done - self._first) / elapsed if elapsed > 0 else 0.0
        todo = self.total - self.done if self.total is not None else 0
        left = f", {todo / rate:.0f} s left" if rate > 0 and todo > 0 else ""
        of = f"/{self.total}" if self.total is not None else ""
        note = f" ({words})" if (words := self._words()) else ""
        print(f"{self.label}: {self.done}{of}, {rate:.1f}/s{left}{note}", file=sys.stderr, flush=True)

    def _words(self) -> str:
        return "; ".join(filter(None, [self._note, *sorted(source.note() for source in _noted)]))
