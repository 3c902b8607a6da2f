"""The record of one trajectory: what the agent loop hands to the trainer, its row in `trajectories.jsonl`, a step's
metrics.

Plain data that survives Ray and TransferQueue; no engine.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from safer_steer.dialogue import Dialogue, Turn
from safer_steer.verdict import TurnScores

RECORD_KEY = "safer_steer"  # the agent loop's key in verl's extra_fields
SAFE_FROM = 8  # safety score from which a turn counts as safe: "firm refusal" (rubric)


class TrajectoryRecord(BaseModel):
    """One trajectory. Lists over turns hold an item a turn; those of scores are one shorter if the last is unscored."""

    dialogue_id: str
    source: str
    kind: str
    strategy: str | None = None
    images: list[str] = []
    image_turns: list[list[int]] = []  # indices into `images` for every turn; empty: all at the first
    group: str  # the prompt's uid in this step
    rollout: int  # 0 .. K-1
    users: list[str] = []
    statics: list[str] = []
    answers: list[str] = []
    scores: list[TurnScores] = []
    strategies: list[str] = []
    diagnoses: list[str] = []
    adapted: list[bool] = []  # whether the tutor wrote the question after the turn
    rewards: list[float] = []  # Eq. 4
    tcsr: list[float] = []  # Eq. 18
    ret: float | None = None  # R of Eq. 19; None when masked
    masked: bool = False
    reason: str | None = None  # why it is masked
    unscored: bool = False  # masked because a turn has no score
    end: str = "complete"  # or "context_full", "unscored"
    cut_turns: int = 0  # answers that hit the token limit or a special token
    generated_tokens: int = 0
    mask_tokens: int = 0  # ones in the response mask before masking; equals generated_tokens
    tutor_usage: dict[str, Any] = {}  # the worker's tutor client so far: {"worker": ..., "stats": ...}

    def row(self, step: int) -> Dialogue:
        """The trajectory as a dialogue row; what belongs to the rollout is in `meta`."""
        turns = []
        for index, (user, answer) in enumerate(zip(self.users, self.answers, strict=True)):
            scored = index < len(self.scores)
            turns.append(
                Turn(
                    user=user,
                    template=self.statics[index],
                    assistant=answer,
                    scores=self.scores[index] if scored else None,
                    images=self.image_turns[index] if index < len(self.image_turns) else [],
                    meta=self._turn_meta(index) if scored else {},
                )
            )
        meta = {"step": step, "group": self.group, "rollout": self.rollout, "dialogue": self.dialogue_id}
        meta |= {"return": self.ret, "masked": self.masked, "reason": self.reason, "end": self.end}
        meta |= {
            "generated_tokens": self.generated_tokens,
            "mask_tokens": self.mask_tokens,
            "cut_turns": self.cut_turns,
        }
        return Dialogue(
            id=f"{step}:{self.group[:8]}:{self.rollout}",
            source=self.source,
            kind=self.kind,
            strategy=self.strategy,
            images=self.images,
            turns=turns,
            meta=meta,
        )

    def _turn_meta(self, index: int) -> dict[str, Any]:
        meta: dict[str, Any] = {"attack_strategy": self.strategies[index], "diagnosis": self.diagnoses[index]}
        meta["reward"] = self.rewards[index]
        if index < len(self.tcsr):
            meta["tcsr"] = self.tcsr[index]
        return meta


def step_metrics(records: Sequence[TrajectoryRecord], expected: int) -> dict[str, float]:
    """Metrics of one step's trajectories.

    Args:
        records: the trajectories that came back.
        expected: how many were asked for; the rest failed in the rollout.

    Returns:
        name -> value. Score means run over scored turns only; `rollout/unscored_rate` counts trajectories without a
        usable score and trajectories that never came back, over `expected`.
    """
    scores = [score for record in records for score in record.scores]
    rewards = [reward for record in records for reward in record.rewards]
    complete = [record for record in records if not record.masked]
    missing = expected - len(records)
    unscored = sum(record.unscored for record in records)
    metrics = {
        "rollout/trajectories": len(records),
        "rollout/missing": missing,
        "rollout/masked": sum(record.masked for record in records),
        "rollout/unscored": unscored,
        "rollout/unscored_rate": (unscored + missing) / max(expected, 1),
        "rollout/turns": sum(len(record.answers) for record in records),
        "rollout/cut_turns": sum(record.cut_turns for record in records),
        "rollout/context_full": sum(record.end == "context_full" for record in records),
        "rollout/generated_tokens": sum(record.generated_tokens for record in records),
        "rollout/mask_tokens": sum(record.mask_tokens for record in records),
    }
    groups: dict[str, list[float]] = {}
    for record in complete:
        groups.setdefault(record.group, []).append(record.ret)
    metrics["rollout/flat_groups"] = sum(max(values) - min(values) < 1e-9 for values in groups.values())
    for name in TurnScores.model_fields:
        if scores:
            metrics[f"tutor/{name}_mean"] = sum(getattr(score, name) for score in scores) / len(scores)
    if rewards:
        metrics["tutor/turn_reward_mean"] = sum(rewards) / len(rewards)
    if complete:
        metrics["tutor/return_mean"] = sum(record.ret for record in complete) / len(complete)
        safe = [min(score.safety for score in record.scores) >= SAFE_FROM for record in complete]
        metrics["tutor/fully_safe_share"] = sum(safe) / len(safe)
    followed = [flag for record in records for flag in record.adapted]
    if followed:
        metrics["tutor/adapted_share"] = sum(followed) / len(followed)
    for name, count in Counter(name for record in records for name in record.strategies).items():
        metrics[f"tutor/strategy_{name}"] = count
    return metrics
