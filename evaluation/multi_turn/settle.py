"""How inference and judging end: every task is retried where that can help, and what is left is recorded, not dropped.

`process_rows` keeps rows and rejects; a reject may carry, under "row", the row to record once no retry is left. All
state is in the two files, so that a killed run goes on from them.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from pydantic import BaseModel

from safer_steer.errors import RunAborted
from safer_steer.rows import Counts, Reject, Task, count_results, process_rows
from safer_steer.store import JsonlStore


def lost(reason: str, detail: str, outcome: str, row: BaseModel) -> Reject:
    """A reject that knows which row stands for it in the end."""
    return Reject(reason, detail, outcome, {"row": row.model_dump(mode="json")})


async def process_twice(
    tasks: Sequence[Task],
    work: Callable[[Any], Awaitable[BaseModel | Reject]],
    *,
    kept: JsonlStore,
    rejects: JsonlStore,
    label: str,
    concurrency: int,
    max_transport_rate: float,
) -> None:
    """Runs `process_rows`, and once more when transport failures are left, which it tries again.

    Raises:
        RunAborted: as `process_rows`.
    """
    for _ in range(2):
        await process_rows(
            tasks,
            work,
            kept=kept,
            rejects=rejects,
            label=label,
            concurrency=concurrency,
            max_transport_rate=max_transport_rate,
        )
        if not any(row["outcome"] == "transport" for row in rejects.rows()):
            return


def left_rows(rejects: JsonlStore, model: type[BaseModel]) -> list[Any]:
    """The rows that stand for lost tasks, in file order."""
    return [model.model_validate(row["row"]) for row in rejects.rows() if row.get("row")]


def check_transport(rejects: JsonlStore, total: int, max_transport_rate: float, label: str) -> None:
    """The final check, however few tasks there are, before what was lost is recorded for good.

    Raises:
        RunAborted: more than `max_transport_rate` of all tasks were lost to transport failures.
    """
    gone = [row["detail"] for row in rejects.rows() if row["outcome"] == "transport"]
    if len(gone) > max_transport_rate * total:
        raise RunAborted(
            f"{label}: {len(gone)} of {total} tasks failed to reach a model, each twice (limit "
            f"{max_transport_rate:.0%}, max_transport_rate), the last: {gone[-1]}; check the endpoint and run the "
            "same command again to go on"
        )


def record_left(tasks: Sequence[Task], kept: JsonlStore, rejects: JsonlStore, model: type[BaseModel]) -> Counts:
    """Appends the rows of lost tasks to the kept ones and counts."""
    for row in left_rows(rejects, model):
        kept.append(row)
    return count_results(tasks, kept, rejects)
