"""Which saved step was the best so far, and its weights in a plain Hugging Face folder next to the run's checkpoints.

The measure is the mean turn reward: of the held-out prompts when the run validates, else of the training rollouts since
the save before. Files: `best/` (weights) and, once that is whole, `best.json` ({"step", "score", "measure"}).
"""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path

from safer_steer.answer_format import PLAIN, AnswerFormat
from safer_steer.store import write_atomic
from safer_steer_verl.export import export_weights, has_weights

VALIDATION, TRAINING = "val/tutor/turn_reward_mean", "tutor/turn_reward_mean"


@dataclass
class BestCheckpoint:
    """Keeps `folder/best` at the best step; `max_pixels` and `answers` are picture size and format of the training."""

    folder: Path
    max_pixels: int
    answers: AnswerFormat = PLAIN
    _since_save: list[float] = field(default_factory=list)

    @property
    def record(self) -> Path:
        """Where the best step's number and score stand."""
        return self.folder / "best.json"

    def rewind(self, step: int) -> None:
        """Forgets a best step after `step`: it will be done again. Its weights stay until a saved step follows."""
        if self.record.is_file() and json.loads(self.record.read_text(encoding="utf-8"))["step"] > step:
            self.record.unlink()

    def note(self, metrics: dict[str, float], checkpoint: Path | None, step: int) -> bool:
        """Takes in a step's metrics; copies the weights when the step was saved and is the best so far.

        Args:
            metrics: the step's metrics.
            checkpoint: verl's folder of this step, None when it was not saved.
            step: the step's number.

        Returns:
            Whether `best/` now holds this step.
        """
        if (trained := metrics.get(TRAINING)) is not None:
            self._since_save.append(float(trained))
        if checkpoint is None or not has_weights(checkpoint):
            return False
        score, measure = self._score(metrics)
        self._since_save.clear()
        if measure == TRAINING and self._best(VALIDATION):
            return False  # held-out scores say more; a step without one does not replace a step with one
        if score is None or (self._best(measure) or (-math.inf, 0))[0] >= score:
            return False
        export_weights(checkpoint, self.folder / "best", self.max_pixels, self.answers)
        write_atomic(self.record, json.dumps({"step": step, "score": score, "measure": measure}) + "\n")
        return True

    def _score(self, metrics: dict[str, float]) -> tuple[float | None, str]:
        if metrics.get(VALIDATION) is not None:
            return float(metrics[VALIDATION]), VALIDATION
        if not self._since_save:
            return None, TRAINING
        return sum(self._since_save) / len(self._since_save), TRAINING

    def _best(self, measure: str) -> tuple[float, int] | None:
        """Score and step so far; None when there is none, or when it was measured in another way."""
        if not self.record.is_file():
            return None
        found = json.loads(self.record.read_text(encoding="utf-8"))
        return (found["score"], found["step"]) if found["measure"] == measure else None
