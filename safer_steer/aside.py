"""A stage's rows when it is run again for other tasks than last time: more, fewer, others, or some once more.

What is done is kept. Rows of tasks that are not asked for now lie in the folder `aside` and come back when they are; so
the files next to it hold what was asked for and nothing else, and whoever reads them counts right. Rows of tasks that
are to be done once more go to `retried`, as they were. Files are read as streams; a kill loses no row, for each is
written to its new place before it is taken out of the old one.
"""

from collections.abc import Callable, Collection, Iterable
from itertools import chain
from pathlib import Path
from typing import Any

from safer_steer.rows import task_of
from safer_steer.store import rows_if_there, write_jsonl

ASIDE, RETRIED = "aside", "retried"
Row = dict[str, Any]


def set_aside(path: Path, tasks: Collection[str]) -> None:
    """Lets a file hold the rows of these tasks alone, of those that are there or were set aside."""
    beside = path.parent / ASIDE / path.name
    here, away = ({task_of(row) for row in rows_if_there(file)} for file in (path, beside))
    if all(task in tasks for task in here) and not any(task in tasks for task in away):
        return
    write_jsonl(beside, chain(rows_if_there(beside), (row for row in rows_if_there(path) if task_of(row) not in away)))
    write_jsonl(path, (row for row in rows_if_there(beside) if task_of(row) in tasks))
    write_jsonl(beside, (row for row in rows_if_there(beside) if task_of(row) not in tasks))


def any_row(paths: Iterable[Path], which: Callable[[Row], bool]) -> bool:
    """Whether one of the files has such a row."""
    return any(which(row) for path in paths for row in rows_if_there(path))


def take_out(path: Path, which: Callable[[Row], bool]) -> None:
    """Moves such rows of a file behind those that were moved before."""
    beside = path.parent / RETRIED / path.name
    if any_row([path], which):
        write_jsonl(beside, chain(rows_if_there(beside), (row for row in rows_if_there(path) if which(row))))
        write_jsonl(path, (row for row in rows_if_there(path) if not which(row)))
