"""verl's parquet for Stage III, by the same program that the GRPO launcher runs: one layout, written in one place."""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from exports.config import ExportConfig
from training.grpo.prepare import prepare_apart


def write(config: ExportConfig, folder: Path) -> dict[str, Any]:
    """Writes `data/train.parquet` (prompts and static turns; answers are left to the policy) and its rejects.

    Returns:
        The counts of that program: rows, kept, rejected, reasons.

    Raises:
        UserError: no row is usable, or the model's processor cannot be loaded.
    """
    settings = {
        "safer_steer": {
            "data": {"source": config.data, "max_pixels": config.max_pixels, "pictures": config.verl.pictures},
            "answer_format": config.answer_format.model_dump(),
        },
        "actor_rollout_ref": {"model": {"path": config.verl.model}},
        "data": {
            "max_prompt_length": config.verl.max_prompt_length,
            "train_files": str(folder / "data" / "train.parquet"),
        },
    }
    path = folder / "config.yaml"
    OmegaConf.save(OmegaConf.create(settings), path)
    return prepare_apart(path)
