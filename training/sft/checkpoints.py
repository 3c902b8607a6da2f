"""Trainer checkpoints and the log: find the last whole one, forget what a killed process left half written."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

from safer_steer.store import read_jsonl, write_jsonl


def last_checkpoint(folder: Path) -> Path | None:
    """The checkpoint with the highest step that was written to its end; half-written ones are removed.

    The trainer writes `trainer_state.json` last, so a checkpoint without a readable one was cut off.
    """
    found: dict[int, Path] = {}
    for path in folder.glob("checkpoint-*") if folder.is_dir() else ():
        match = re.fullmatch(r"checkpoint-(\d+)", path.name)
        if match is None:
            continue
        if _is_whole(path):
            found[int(match[1])] = path
        else:
            shutil.rmtree(path)
    return found[max(found)] if found else None


def _is_whole(checkpoint: Path) -> bool:
    try:
        state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return "global_step" in state


def rewind_log(path: Path, step: int) -> dict[str, Any]:
    """Drops the log's rows after `step`, so that a resumed run writes each step once; returns the last row, or {}."""
    if not path.exists():
        return {}
    rows = [row for row in read_jsonl(path) if row["step"] <= step]
    write_jsonl(path, rows)
    return rows[-1] if rows else {}


def replace_folder(new: Path, old: Path) -> None:
    """Puts a finished folder in the place of `old`, so that `old` is never half written."""
    if old.exists():
        shutil.rmtree(old)
    new.rename(old)
