"""verl's parquet for Stage III, by the same program that the GRPO launcher runs: one layout, written in one place."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from safer_steer.errors import UserError
from training.exports.config import ExportConfig


def write(config: ExportConfig, folder: Path) -> dict[str, Any]:
    """Writes `data/train.parquet` (prompts and static turns; answers are left to the policy) and its rejects.

    Returns:
        The counts of that program: rows, kept, rejected, reasons.

    Raises:
        UserError: no row is usable, or the model's processor cannot be loaded.
    """
    settings = {
        "safer_steer": {"data": {"source": config.data, "max_pixels": config.max_pixels}},
        "actor_rollout_ref": {"model": {"path": config.verl.model}},
        "data": {
            "max_prompt_length": config.verl.max_prompt_length,
            "train_files": str(folder / "data" / "train.parquet"),
        },
    }
    path = folder / "config.yaml"
    OmegaConf.save(OmegaConf.create(settings), path)
    command = [sys.executable, "-m", "training.grpo.prepare", str(path)]
    answer = subprocess.run(command, env=os.environ, stderr=subprocess.PIPE, text=True, check=False)
    if answer.returncode:
        last = (answer.stderr.strip().splitlines() or ["no output"])[-1]
        raise UserError(f"verl export: {last.removeprefix('error: ')}")
    return json.loads((folder / "data" / "counts.json").read_text(encoding="utf-8"))
