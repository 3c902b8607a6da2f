"""Recognising a checkpoint: a hash that is quick at any size and changes when the weights are trained again."""

import hashlib
from pathlib import Path

from safer_steer.errors import UserError

WINDOWS, WINDOW_BYTES = 16, 1 << 16


def is_hub_id(checkpoint: str) -> bool:
    """True for ORG/NAME, unless such a folder, or one of the name ORG, is here."""
    path = Path(checkpoint)
    local = path.is_dir() or path.is_absolute() or len(path.parts) != 2 or Path(path.parts[0]).is_dir()
    return not local and checkpoint[0] != "."


def weights_fingerprint(checkpoint: str | Path) -> str:
    """A hash of a checkpoint folder: its config, and names, sizes and evenly spaced pieces of its weight files.

    Raises:
        UserError: the folder is missing its config or its weights.
    """
    folder = Path(checkpoint)
    files = sorted(folder.glob("*.safetensors")) if (folder / "config.json").is_file() else []
    if not files:
        raise UserError(
            f"no checkpoint at {checkpoint}: needs config.json and *.safetensors; run the stage that writes it, "
            "or correct the path"
        )
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for path in files:
        size = path.stat().st_size
        digest.update(f"{path.name} {size}".encode())
        with path.open("rb") as file:
            for window in range(WINDOWS):
                file.seek(max(0, size - WINDOW_BYTES) * window // (WINDOWS - 1))
                digest.update(file.read(WINDOW_BYTES))
    return digest.hexdigest()[:16]
