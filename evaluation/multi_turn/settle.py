"""How inference and judging end: what is left when every task was tried is recorded, not dropped.

`process_twice` keeps rows and rejects; a reject may carry, under "row", the row to record once no retry is left. All
state is in the two files, so that a killed run goes on from them.
"""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from safer_steer.rows import Counts, Reject, Task, count_results
from safer_steer.store import JsonlStore


def lost(reason: str, detail: str, outcome: str, row: BaseModel) -> Reject:
    """A reject that knows which row stands for it in the end."""
    return Reject(reason, detail, outcome, {"row": row.model_dump(mode="json")})


def left_rows(rejects: JsonlStore, model: type[BaseModel]) -> list[Any]:
    """The rows that stand for lost tasks, in file order."""
    return [model.model_validate(row["row"]) for row in rejects.rows() if row.get("row")]


def record_left(tasks: Sequence[Task], kept: JsonlStore, rejects: JsonlStore, model: type[BaseModel]) -> Counts:
    """Appends the rows of lost tasks to the kept ones and counts."""
    for row in left_rows(rejects, model):
        kept.append(row)
    return count_results(tasks, kept, rejects)
