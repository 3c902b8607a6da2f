"""The one way a stage maps rows through model calls: concurrent, resumable by task id, every row kept or rejected
with a reason.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import BaseModel

from safer_steer.errors import RunAborted
from safer_steer.images import ImageError
from safer_steer.progress import ProgressBar
from safer_steer.store import JsonlStore, read_jsonl, write_jsonl

MIN_TASKS_BEFORE_ABORT = 20


class Task(Protocol):
    """A unit of work; `task_id` is stable over runs and processes."""

    @property
    def task_id(self) -> str:
        """The task's stable id."""


@dataclass(frozen=True)
class Reject:
    """Why a task gave no row. Rejects with outcome "transport" are tried again when the run is resumed."""

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

    def as_dict(self) -> dict[str, Any]:
        """For `run.json` and the closing line."""
        return {"in": self.tasks, "kept": self.kept, "rejected": self.rejected} | {
            f"({k})": v for k, v in self.reasons.items()
        }


async def process_rows(
    tasks: Sequence[Task],
    work: Callable[[Any], Awaitable[BaseModel | Reject]],
    *,
    kept: JsonlStore,
    rejects: JsonlStore,
    label: str,
    concurrency: int,
    max_transport_rate: float = 0.2,
) -> Counts:
    """Runs `work` for every task that has no result yet.

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

    Raises:
        RunAborted: too many transport failures, or `work` raised it.
    """
    _forget_transport_rejects(rejects)
    done = {row["meta"]["task"] for row in kept.rows()} | rejects.ids
    waiting = iter([task for task in tasks if task.task_id not in done])
    reasons: Counter[str] = Counter()
    transport = finished = 0

    async def worker(bar: ProgressBar) -> None:
        nonlocal transport, finished
        for task in waiting:
            try:
                result = await work(task)
            except ImageError as error:
                result = Reject("unusable picture", str(error))
            if isinstance(result, BaseModel) and not kept.append(result):
                result = Reject("duplicate", f"same content as row {result.id}")
            finished += 1
            if isinstance(result, Reject):
                data = {"id": task.task_id, "reason": result.reason, "detail": result.detail, "outcome": result.outcome}
                rejects.append(data | result.row)
                reasons[result.reason] += 1
                transport += result.outcome == "transport"
                if finished >= MIN_TASKS_BEFORE_ABORT and transport > max_transport_rate * finished:
                    raise RunAborted(
                        f"{label}: {transport} of {finished} tasks failed to reach a model "
                        f"(limit {max_transport_rate:.0%}), "
                        f"the last: {result.detail}; check the endpoint and run the same command again to go on"
                    )
            bar.advance(", ".join(f"{count} {reason}" for reason, count in reasons.most_common(3)))

    with ProgressBar(label, len(tasks), done=sum(task.task_id in done for task in tasks)) as bar:
        await _run_all([worker(bar) for _ in range(max(1, min(concurrency, len(tasks))))])
    return count_results(tasks, kept, rejects)


async def _run_all(workers: list[Any]) -> None:
    running = [asyncio.ensure_future(worker) for worker in workers]
    try:
        await asyncio.gather(*running)
    finally:
        for worker in running:
            worker.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def count_results(tasks: Sequence[Task], kept: JsonlStore, rejects: JsonlStore) -> Counts:
    """Counts kept and rejected among `tasks` from the files, so that they hold over interruptions."""
    wanted = {task.task_id for task in tasks}
    kept_tasks = {row["meta"]["task"] for row in kept.rows()} & wanted
    reasons = Counter(row["reason"] for row in rejects.rows() if row["id"] in wanted - kept_tasks)
    return Counts(len(wanted), len(kept_tasks), sum(reasons.values()), dict(reasons.most_common()))


def _forget_transport_rejects(rejects: JsonlStore) -> None:
    rows = list(read_jsonl(rejects.path))
    stay = [row for row in rows if row["outcome"] != "transport"]
    if len(stay) < len(rows):
        rejects.close()
        write_jsonl(rejects.path, stay)
        rejects.__init__(rejects.path, rejects.key)
