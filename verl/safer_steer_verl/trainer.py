"""verl's synchronous v1 trainer with SaFeR-Steer's step: stop rule, metrics, trajectory rows, best checkpoint.

Input: verl's config with our `safer_steer:` section, chosen by `trainer.v1.trainer_mode=safer_steer`. Output: besides
verl's checkpoints, in their parent folder: `metrics.jsonl` (one line per step), `trajectories.jsonl` and
`validation.jsonl` (one line a trajectory), `best/`.
"""

import math
import os
import uuid
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import transfer_queue as tq
from omegaconf import DictConfig, OmegaConf, open_dict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils import tensordict_utils

from safer_steer.answer_format import AnswerFormat
from safer_steer.errors import UserError
from safer_steer.store import JsonlStore
from safer_steer_verl import estimators
from safer_steer_verl.best import BestCheckpoint
from safer_steer_verl.kept import PREFIX, keep_only
from safer_steer_verl.step_metrics import step_metrics
from safer_steer_verl.stop_rule import not_finite, too_few
from safer_steer_verl.trajectory import RECORD_KEY, TrajectoryRecord
from safer_steer_verl.tutor_usage import TutorUsage

POLL_S = 0.05  # on a CPU; verl looks for finished rollouts every 2 s, most of a miniature step


@register_trainer("safer_steer")
class SaferSteerTrainer(PPOTrainerSync):
    """PPOTrainerSync whose metrics and stop rule know about masked trajectories."""

    def __init__(self, config: DictConfig):
        with open_dict(config):
            config.trainer.v1.trainer_mode = "sync"  # what verl's own code compares with
        super().__init__(config)
        estimators.register()
        if config.trainer.device == "cpu":
            self.replay_buffer.poll_interval = POLL_S
        self.records: dict[str, TrajectoryRecord] = {}
        self.usage = TutorUsage()

    def on_init_end(self) -> None:
        """Opens the run's files; `training.grpo.checkpoints.rewind` took out the rows of steps to be done again."""
        super().on_init_end()
        folder = Path(self.config.trainer.default_local_dir).parent
        self.metrics_file = JsonlStore(folder / "metrics.jsonl", key="step")
        self.trajectory_file, self.validation_file = (
            JsonlStore(folder / f"{name}.jsonl") for name in ("trajectories", "validation")
        )
        # Picture paths in a row are relative to the row's file.
        self.pictures = os.path.relpath(Path(self.config.safer_steer.data.source).parent, folder)
        ours = self.config.safer_steer
        answers = AnswerFormat.model_validate(OmegaConf.to_container(ours.answer_format, resolve=True))
        self.best = BestCheckpoint(folder, ours.data.max_pixels, answers)
        self.best.rewind(self.global_steps)

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        real = [key for key, tag in zip(batch.keys, batch.tags, strict=True) if not tag.get("is_padding", False)]
        self.records = _records(real, batch.partition_id)
        expected = self.config.data.train_batch_size * self.config.actor_rollout_ref.rollout.n
        metrics.update(step_metrics(list(self.records.values()), expected))
        metrics.update(self.usage.take(self.records.values()))  # before a validation's calls are added
        self._stop_if_too_few(self.records.values(), expected, self.trajectory_file)
        batch = super()._compute_advantage(batch, metrics)
        for record, values in zip(self.records.values(), _rows(real, batch.partition_id, "advantages"), strict=True):
            record.advantages = [None if end is None else round(float(values[end]), 6) for end in record.turn_ends]
        return batch

    def _validate(self) -> dict[str, float]:
        """Plays the held-out prompts: a training step's metrics, under `val/`; rows to `validation.jsonl`."""
        records: list[TrajectoryRecord] = []
        expected = 0
        for rows in self.val_dataloader:
            rows["uid"] = np.array([str(uuid.uuid4()) for _ in rows["raw_prompt"]], dtype=object)
            batch = tensordict_utils.get_tensordict(rows)
            tensordict_utils.assign_non_tensor_data(batch, "global_steps", self.global_steps)
            tensordict_utils.assign_non_tensor_data(batch, "validate", True)
            tag = {"is_prompt": True, "status": "pending", "global_steps": self.global_steps}
            tq.kv_batch_put(keys=list(batch["uid"]), partition_id="val", tags=[dict(tag) for _ in range(len(batch))])
            expected += len(batch) * self.config.actor_rollout_ref.rollout.val_kwargs.n
            self.agent_loop_manager.generate_sequences(batch)
            done, _ = self.replay_buffer.sample(
                global_steps=self.global_steps, partition_id="val", batch_size=len(batch)
            )
            records += _records(done.keys, done.partition_id).values()
            tq.kv_clear(keys=done.keys, partition_id=done.partition_id)
        metrics = step_metrics(records, expected)
        self._stop_if_too_few(records, expected, self.validation_file)
        self._write(records, self.validation_file)
        self.usage.take(records)
        metrics = {f"val/{name}": value for name, value in metrics.items()}
        if self.global_steps == 0:  # before training; later ones stand in their step's row
            self.metrics_file.append({"step": 0, **metrics})
        return metrics

    def _write(self, records: Iterable[TrajectoryRecord], file: JsonlStore) -> None:
        for record in records:
            file.append(record.row(self.global_steps, self.pictures))

    def _stop_if_too_few(self, records: Collection[TrajectoryRecord], expected: int, file: JsonlStore) -> None:
        """Ends the run when too little can be learned from; the rows are written first, to be looked at."""
        problem = too_few(records, expected, self.config.safer_steer)
        if problem:
            self._write(records, file)
            raise UserError(f"step {self.global_steps}: {problem}")

    def _save_checkpoint(self) -> None:
        """As verl does it; those of earlier attempts count among the ones to keep."""
        super()._save_checkpoint()
        trainer = self.config.trainer
        keep_only(Path(trainer.default_local_dir), self.global_steps, trainer.max_actor_ckpt_to_keep)

    def _compute_metrics(
        self, batch: KVBatchMeta, metrics: dict, timing_raw: dict, global_steps: int, epoch: int
    ) -> None:
        """Verl's metrics over the unmasked trajectories, then the step's rows, then the best checkpoint."""
        used = [
            (key, tag)
            for key, tag in zip(batch.keys, batch.tags, strict=True)
            if key in self.records and not self.records[key].masked
        ]
        kept = batch
        if used:
            keys, tags = (list(column) for column in zip(*used, strict=True))
            kept = KVBatchMeta(partition_id=batch.partition_id, keys=keys, tags=tags)
        super()._compute_metrics(kept, metrics, timing_raw, global_steps, epoch)
        self._write(self.records.values(), self.trajectory_file)
        saved = Path(self.config.trainer.default_local_dir) / f"{PREFIX}{global_steps}"
        metrics["training/is_best"] = int(self.best.note(metrics, saved if saved.is_dir() else None, global_steps))
        row = {name: _number(value) for name, value in sorted(metrics.items())}
        self.metrics_file.append({"step": global_steps, **row, "tutor_usage": self.usage.by_worker()})
        if problem := not_finite(metrics):
            raise UserError(f"step {global_steps}: {problem}")


def _rows(keys: list[str], partition_id: str, name: str) -> list[Any]:
    """One field of some trajectories, row by row."""
    data = tq.kv_batch_get(keys=keys, partition_id=partition_id, select_fields=[name])[name]
    return list(data.unbind()) if hasattr(data, "unbind") else list(data)


def _records(keys: list[str], partition_id: str) -> dict[str, TrajectoryRecord]:
    """Key -> record of the trajectories with these keys; verl's padding rows are copies and must be left out."""
    data = tq.kv_batch_get(keys=keys, partition_id=partition_id, select_fields=["extra_fields"])
    fields = [getattr(item, "data", item) for item in data["extra_fields"]]
    return {key: TrajectoryRecord.model_validate(item[RECORD_KEY]) for key, item in zip(keys, fields, strict=True)}


def _number(value: Any) -> float | None:
    """A metric as a JSON number; None when it is not finite or not a number."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
