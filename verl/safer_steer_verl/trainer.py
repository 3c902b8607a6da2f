"""verl's synchronous v1 trainer with SaFeR-Steer's step: stop rule, tutor metrics, trajectory rows, quick polling.

Input: verl's config with our `safer_steer:` section. Output: besides verl's checkpoints, `metrics.jsonl` (one line a
step) and `trajectories.jsonl` (one line a trajectory) in `trainer.default_local_dir`'s parent. Chosen by
`trainer.v1.trainer_mode=safer_steer`.
"""

import math
from pathlib import Path
from typing import Any

import transfer_queue as tq
from omegaconf import DictConfig, open_dict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from safer_steer.errors import UserError
from safer_steer.store import JsonlStore, read_jsonl, write_jsonl
from safer_steer_verl.trajectory import RECORD_KEY, TrajectoryRecord, step_metrics
from safer_steer_verl.utils import advantage

POLL_S = 0.05  # verl looks for finished rollouts every 2 s, most of a small step


class UnscoredRateError(UserError):
    """Too many trajectories without a score: the run stops instead of learning from what happens to be left."""


@register_trainer("safer_steer")
class SaferSteerTrainer(PPOTrainerSync):
    """PPOTrainerSync whose metrics and stop rule know about masked trajectories."""

    def __init__(self, config: DictConfig):
        with open_dict(config):
            config.trainer.v1.trainer_mode = "sync"  # what verl's own code compares with
        super().__init__(config)
        advantage.register()
        self.replay_buffer.poll_interval = POLL_S
        self.records: dict[str, TrajectoryRecord] = {}
        self.tutor_usage: dict[int, dict[str, Any]] = {}

    def on_init_end(self) -> None:
        """Opens the run's files at the resumed step: rows of steps that will be done again are dropped."""
        super().on_init_end()
        folder = Path(self.config.trainer.default_local_dir).parent
        self.metrics_file = _resumed(folder / "metrics.jsonl", "step", lambda row: row["step"], self.global_steps)
        self.trajectory_file = _resumed(
            folder / "trajectories.jsonl", "id", lambda row: row["meta"]["step"], self.global_steps
        )

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        self.records = _records(batch)
        expected = self.config.data.train_batch_size * self.config.actor_rollout_ref.rollout.n
        metrics.update(step_metrics(list(self.records.values()), expected))
        self._stop_if_unscored(metrics["rollout/unscored_rate"], expected)
        return super()._compute_advantage(batch, metrics)

    def _stop_if_unscored(self, rate: float, expected: int) -> None:
        limit = self.config.safer_steer.max_unscored_rate
        if rate <= limit:
            return
        reasons = sorted({record.reason for record in self.records.values() if record.unscored and record.reason})
        raise UnscoredRateError(
            f"step {self.global_steps}: {rate:.0%} of {expected} trajectories have no score, "
            f"safer_steer.max_unscored_rate is {limit:.0%}; first reason: "
            f"{reasons[0] if reasons else 'the rollout failed'}; see to the tutor, then run the same command again: "
            "it goes on from the last checkpoint"
        )

    def _compute_metrics(
        self, batch: KVBatchMeta, metrics: dict, timing_raw: dict, global_steps: int, epoch: int
    ) -> None:
        """Verl's metrics over the unmasked trajectories, then the step's rows."""
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
        for record in self.records.values():
            self.trajectory_file.append(record.row(global_steps))
            if record.tutor_usage:
                self.tutor_usage[record.tutor_usage["worker"]] = record.tutor_usage["stats"]
        metrics["tutor/calls"] = sum(stats["calls"] for stats in self.tutor_usage.values())
        row = {name: _number(value) for name, value in sorted(metrics.items())}
        usage = {str(worker): stats for worker, stats in self.tutor_usage.items()}
        self.metrics_file.append({"step": global_steps, **row, "tutor_usage": usage})


def _records(batch: KVBatchMeta) -> dict[str, TrajectoryRecord]:
    """Key -> record of the real trajectories of a batch; verl's padding rows are copies and are left out."""
    real = [key for key, tag in zip(batch.keys, batch.tags, strict=True) if not tag.get("is_padding", False)]
    data = tq.kv_batch_get(keys=real, partition_id=batch.partition_id, select_fields=["extra_fields"])
    fields = [getattr(item, "data", item) for item in data["extra_fields"]]
    return {key: TrajectoryRecord.model_validate(item[RECORD_KEY]) for key, item in zip(real, fields, strict=True)}


def _resumed(path: Path, key: str, step_of: Any, last_step: int) -> JsonlStore:
    """The file's store, without the rows of steps after `last_step`."""
    if path.exists():
        write_jsonl(path, [row for row in read_jsonl(path) if step_of(row) <= last_step])
    return JsonlStore(path, key=key)


def _number(value: Any) -> float | None:
    """A metric as a JSON number; None when it is not finite or not a number."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
