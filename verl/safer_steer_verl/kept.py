"""verl's checkpoint folders of a run: which are whole, and which are kept.

verl itself removes only what its own process has saved, so that every resume would leave the earlier ones behind.
"""

import shutil
from pathlib import Path

PREFIX = "global_step_"
LAST_FILE = "data.pt"  # what verl writes into a checkpoint after everything else


def whole_steps(folder: Path) -> list[int]:
    """Steps whose checkpoint is whole, newest first."""
    return sorted((step for step, path in _steps(folder).items() if _is_whole(path)), reverse=True)


def keep_only(folder: Path, step: int, keep: int | None) -> list[int]:
    """Removes all checkpoints but that of `step` and the newest whole ones before it.

    Those of later steps go too, and parts of one: these steps are done again. Links, and folders of other names, stay.

    Args:
        folder: verl's checkpoint folder.
        step: the one to continue from; 0: there is none, and the run starts again. Where it is not whole, nothing is
            removed.
        keep: how many stay, that of `step` among them; None: all whole ones up to `step`.

    Returns:
        The steps whose checkpoints were removed.
    """
    whole = [other for other in whole_steps(folder) if other <= step]
    if step and step not in whole:
        return []
    kept = whole[:keep]
    unwanted = {other: path for other, path in _steps(folder).items() if other not in kept and not path.is_symlink()}
    for path in unwanted.values():
        (path / LAST_FILE).unlink(missing_ok=True)  # first, so that what a kill leaves is not taken for whole
        shutil.rmtree(path, ignore_errors=True)
    return sorted(unwanted)


def _steps(folder: Path) -> dict[int, Path]:
    found = (path for path in folder.glob(f"{PREFIX}*") if path.is_dir())
    return {int(number): path for path in found if (number := path.name.removeprefix(PREFIX)).isdigit()}


def _is_whole(path: Path) -> bool:
    return (path / LAST_FILE).is_file() and any((path / "actor").glob("model_world_size_*"))
