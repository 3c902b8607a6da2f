"""The one way a stage maps rows through model calls: concurrent, resumable by task id, every row kept or rejected
with a reason.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sized
from dataclasses import dataclass, field
from sys import intern
from typing import Any, Protocol

from pydantic import BaseModel

from safer_steer.errors import ImageError, RunAborted
from safer_steer.progress import ProgressBar
from safer_steer.store import JsonlStore

MIN_TASKS_BEFORE_ABORT = 20
MIN_FAILURES = 3  # fewer say nothing about the share of failures
KEPT = "kept"


class Task(Protocol):
    """A unit of work; `task_id` is stable over runs and processes."""

    @property
    def task_id(self) -> str:
        """The task's stable id."""


@dataclass(frozen=True)
class Reject:
    """Why a task gave no row. Rejects with outcome "transport" are tried again, see `process_twice`."""

    reason: str
    detail: str = ""
    outcome: str | None = None
    row: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Counts:
    """tasks = kept + rejected, always; `reasons` counts the rejects."""

    tasks: int
    kept: int
    rejected: int
    reasons: dict[str, int]

    def with_rejected(self, reasons: Iterable[str]) -> "Counts":
        """The counts with so many more tasks, each rejected for one of the reasons."""
        more = Counter(reasons)
        both = Counter(self.reasons) + more
        number = more.total()
        return Counts(self.tasks + number, self.kept, self.rejected + number, dict(both.most_common()))

    def as_dict(self) -> dict[str, Any]:
        """For `run.json` and the closing line."""
        return {"in": self.tasks, "kept": self.kept, "rejected": self.rejected} | {
            f"({k})": v for k, v in self.reasons.items()
        }


def too_many(failed: int, total: int, limit: float) -> bool:
    """Whether failures are above an allowed share: one bad answer does not stop a small run.

    Args:
        failed: how many failed.
        total: of how many.
        limit: allowed share, in [0, 1]. Fewer than `MIN_FAILURES` are borne, unless all failed or the limit is 0.
    """
    few = failed < MIN_FAILURES and failed < total and limit > 0
    return failed > limit * total and not few


def task_of(row: dict[str, Any]) -> str:
    """The id of the task that a stored row, kept or rejected, is of."""
    return str(row["id"] if "reason" in row else row["meta"]["task"])


class TaskResults:
    """How tasks ended so far, read from the two files: `KEPT`, or the reason of the reject."""

    def __init__(self, kept: JsonlStore, rejects: JsonlStore, *, with_transport: bool):
        """Reads the files; without `with_transport`, tasks lost to transport failures count as not done yet."""
        rejected = (row for row in rejects.rows() if with_transport or not _is_transport(row))
        self._ends = {row["id"]: intern(row["reason"]) for row in rejected}
        self._ends |= {row["meta"]["task"]: KEPT for row in kept.rows()}

    def of(self, task: Task) -> str | None:
        """The task's end; None when it has none."""
        return self._ends.get(task.task_id)


async def process_rows(
    tasks: Iterable[Task],
    work: Callable[[Any], Awaitable[BaseModel | Reject]],
    *,
    kept: JsonlStore,
    rejects: JsonlStore,
    label: str,
    concurrency: int,
    max_transport_rate: float = 0.2,
    total: int | None = None,
    stored: Callable[[Task, Reject], None] = lambda task, reject: None,
) -> Counts:
    """Runs `work` for every task that has no result yet.

    Tasks are taken one by one as places become free, so they may be a stream: of a task only its id stays in memory.
    Kept rows must carry their task's id in `meta["task"]`. A row whose `id` is already there is rejected as a
    duplicate.

    Args:
        tasks: the work, with unique task ids.
        work: gives a row or a `Reject`; an `ImageError` counts as a reject.
        kept: store of rows, keyed by `id`.
        rejects: store of rejects, keyed by task id.
        label: name on the progress bar.
        concurrency: tasks in flight.
        max_transport_rate: share of tasks lost to transport failures, in [0, 1], above which the run stops.
        total: number of tasks for the progress bar, where `tasks` does not know it.
        stored: called with every reject once it is on disk; may end the run.

    Raises:
        RunAborted: too many transport failures, or `work` or `stored` raised it.
    """
    rejects.drop(_is_transport)
    results = TaskResults(kept, rejects, with_transport=False)
    ends: Counter[str | None] = Counter()
    reasons: Counter[str] = Counter()
    transport = finished = 0
    total = len(tasks) if total is None and isinstance(tasks, Sized) else total

    with ProgressBar(label, total) as bar:

        def not_done() -> Iterator[Task]:
            for task in tasks:
                if (end := results.of(task)) is None:
                    yield task
                else:
                    ends[end] += 1
                    bar.skip()

        async def worker(waiting: Iterator[Task]) -> None:
            nonlocal transport, finished
            for task in waiting:
                try:
                    result = await work(task)
                except ImageError as error:
                    result = Reject("unusable picture", str(error))
                if isinstance(result, BaseModel) and not kept.append(result):
                    result = Reject("duplicate", f"same content as row {result.model_dump()['id']}")
                finished += 1
                if isinstance(result, Reject):
                    rejects.append(_reject_row(task, result))
                    stored(task, result)
                    reasons[result.reason] += 1
                    transport += result.outcome == "transport"
                    # Those done before count too: a second pass meets nothing but what failed in the first one.
                    seen = ends.total() + 1
                    if finished >= MIN_TASKS_BEFORE_ABORT and transport > max_transport_rate * seen:
                        raise RunAborted(
                            f"{label}: {transport} of {seen} tasks failed to reach a model "
                            f"(limit {max_transport_rate:.0%}), "
                            f"the last: {result.detail}; check the endpoint and run the same command again to continue"
                        )
                ends[result.reason if isinstance(result, Reject) else KEPT] += 1
                bar.advance(", ".join(f"{count} {reason}" for reason, count in reasons.most_common(3)))

        waiting = not_done()
        await _run_all([worker(waiting) for _ in range(concurrency)])
    return _counts(ends)


async def process_twice(
    tasks: Callable[[], Iterable[Task]],
    work: Callable[[Any], Awaitable[BaseModel | Reject]],
    *,
    rejects: JsonlStore,
    **options: Any,
) -> Counts:
    """Runs `process_rows`, and once more when transport failures are left, which it tries again.

    Args as there, but `tasks` begins the stream of tasks again at every call.

    Raises:
        RunAborted: as `process_rows`.
    """
    for _ in range(2):
        counts = await process_rows(tasks(), work, rejects=rejects, **options)
        if not any(map(_is_transport, rejects.rows())):
            break
    return counts


def check_transport(rejects: JsonlStore, total: int, max_transport_rate: float, label: str) -> None:
    """The final check, however few tasks there are, before what was lost is recorded for good.

    Raises:
        RunAborted: more than `max_transport_rate` of all tasks were lost to transport failures.
    """
    gone = [row["detail"] for row in rejects.rows() if _is_transport(row)]
    if len(gone) > max_transport_rate * total:
        raise RunAborted(
            f"{label}: {len(gone)} of {total} tasks failed to reach a model, each twice (limit "
            f"{max_transport_rate:.0%}, max_transport_rate), the last: {gone[-1]}; check the endpoint and run the "
            "same command again to continue"
        )


def _reject_row(task: Task, reject: Reject) -> dict[str, Any]:
    data = {"id": task.task_id, "reason": reject.reason, "detail": reject.detail, "outcome": reject.outcome}
    return data | reject.row


async def _run_all(workers: list[Any]) -> None:
    running = [asyncio.ensure_future(worker) for worker in workers]
    try:
        await asyncio.gather(*running)
    finally:
        for worker in running:
            worker.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def count_results(tasks: Iterable[Task], kept: JsonlStore, rejects: JsonlStore) -> Counts:
    """Counts kept and rejected among `tasks` from the files, so that they hold over interruptions."""
    results = TaskResults(kept, rejects, with_transport=True)
    return _counts(Counter(map(results.of, tasks)))


def lost(reason: str, detail: str, outcome: str, row: BaseModel) -> Reject:
    """A reject that knows which row is recorded for its task when no try is left."""
    return Reject(reason, detail, outcome, {"row": row.model_dump(mode="json")})


def left_rows(rejects: JsonlStore, model: type[BaseModel]) -> list[Any]:
    """The rows of lost tasks, in file order."""
    return [model.model_validate(row["row"]) for row in rejects.rows() if row.get("row")]


def record_left(kept: JsonlStore, rejects: JsonlStore, model: type[BaseModel]) -> None:
    """Appends the rows of lost tasks to the kept ones."""
    for row in left_rows(rejects, model):
        kept.append(row)


def _counts(ends: Counter[str | None]) -> Counts:
    reasons = {reason: number for reason, number in ends.most_common() if reason not in (KEPT, None)}
    return Counts(ends.total(), ends[KEPT], sum(reasons.values()), reasons)


def _is_transport(row: dict[str, Any]) -> bool:
    return bool(row["outcome"] == "transport")
