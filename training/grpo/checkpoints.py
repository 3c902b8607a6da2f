"""verl's checkpoint folder: which step is the last whole one."""

from pathlib import Path

from safer_steer.store import write_atomic

TRACKER = "latest_checkpointed_iteration.txt"
PREFIX = "global_step_"


def last_step(folder: Path) -> int:
    """The step of the last whole checkpoint in verl's folder, 0 when there is none.

    verl writes a checkpoint's parts, then the tracker file. A run killed in between leaves a torn tracker or a
    partial folder; the tracker is then set back to the last step whose parts are all there.
    """
    whole = sorted(int(path.name.removeprefix(PREFIX)) for path in folder.glob(f"{PREFIX}*") if _is_whole(path))
    tracker = folder / TRACKER
    named = tracker.read_text(encoding="utf-8").strip() if tracker.is_file() else ""
    if named.isdigit() and int(named) in whole:
        return int(named)
    if not whole:
        tracker.unlink(missing_ok=True)
        return 0
    earlier = [step for step in whole if not named.isdigit() or step < int(named)] or whole
    write_atomic(tracker, str(earlier[-1]))
    return earlier[-1]


def _is_whole(path: Path) -> bool:
    name = path.name.removeprefix(PREFIX)
    return name.isdigit() and (path / "data.pt").is_file() and any((path / "actor").glob("model_world_size_*"))
