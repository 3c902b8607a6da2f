"""The step after which a run continues, from verl's checkpoint folder and the run's rows."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safer_steer.errors import UserError
from safer_steer.store import read_jsonl, write_atomic, write_jsonl
from safer_steer_verl.kept import whole_steps

TRACKER = "latest_checkpointed_iteration.txt"
ROW_FILES: dict[str, Callable[[dict[str, Any]], int]] = {
    "metrics.jsonl": lambda row: row["step"],
    "trajectories.jsonl": lambda row: row["meta"]["step"],
    "validation.jsonl": lambda row: row["meta"]["step"],
}


def last_step(folder: Path, metrics: Path) -> int:
    """The last step whose checkpoint is whole and whose row is written, 0 when there is none.

    verl writes a checkpoint's parts, then the tracker file; then the step is validated and its rows are written. A run
    killed in between leaves a torn tracker, a partial folder, or a checkpoint without its step's rows; the tracker is
    then set back, so that the step is done again and no row of the run is missing.

    Args:
        folder: verl's checkpoint folder.
        metrics: the run's `metrics.jsonl`.

    Raises:
        UserError: rows are missing that a kill cannot explain; nothing is changed.
    """
    tracker = folder / TRACKER
    named = tracker.read_text(encoding="utf-8").strip() if tracker.is_file() else ""
    candidates = _candidates(folder, named)
    rows = {row["step"] for row in read_jsonl(metrics)} if candidates and metrics.is_file() else set()
    found = next((step for step in candidates if step in rows), 0)
    if candidates and (newest := candidates[0]) != found:
        if newest > 1 and newest - 1 not in rows:
            raise UserError(
                f"{metrics}: no row of step {newest - 1}, but {folder} has a checkpoint of step {newest}; put the file "
                "back, or give another `output` to start again"
            )
        print(
            f"grpo: killed before the rows of step {newest} were written; continues after step {found}", file=sys.stderr
        )
    if folder.is_dir() and named != str(found):
        write_atomic(tracker, str(found))  # verl finds no folder of step 0 and starts again
    return found


def rewind(folder: Path, step: int) -> None:
    """Takes the rows of steps after `step` out of a run's files: they will be done again. 0: all rows."""
    for name, step_of in ROW_FILES.items():
        path = folder / name
        if path.is_file():
            write_jsonl(path, (row for row in read_jsonl(path) if step and step_of(row) <= step))


def _candidates(folder: Path, named: str) -> list[int]:
    """Steps with a whole checkpoint, newest first; none after the tracker's, which an earlier call may have set."""
    whole = whole_steps(folder)
    if not named.isdigit():
        return whole
    return [step for step in whole if step <= int(named)] or (whole if int(named) else [])
