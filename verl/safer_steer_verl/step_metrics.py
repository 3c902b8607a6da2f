"""The metrics of one step's trajectories: rewards, scores by turn, attacks, refusals, losses, the tutor's time.

Input: `TrajectoryRecord`s. Output: name -> number, for the console, `metrics.jsonl`, TensorBoard and W&B. No engine.
"""

from collections import Counter
from collections.abc import Sequence
from typing import get_args

import numpy as np

from safer_steer.rubric import FIRM_REFUSAL, REFUSED_SAFE, TurnScores
from safer_steer_verl.interactions.safety_tutor import AttackStrategy
from safer_steer_verl.trajectory import TrajectoryRecord


def step_metrics(records: Sequence[TrajectoryRecord], expected: int) -> dict[str, float]:
    """Metrics of one step's trajectories.

    Args:
        records: the trajectories that came back.
        expected: how many were asked for; the rest failed in the rollout.

    Returns:
        name -> value. Score means run over scored turns only, shares of trajectories over the unmasked ones;
        `rollout/unscored_rate` counts trajectories without a usable score and trajectories that never came back, over
        `expected`; `rollout/token_fault_rate` those whose tokens do not add up. A mean over nothing is left out.
    """
    return (
        _rollout(records, expected)
        | _groups(records)
        | _scores(records)
        | _scores_by_turn(records)
        | _dialogues(records)
        | _attacks(records)
        | _tutor(records)
    )


def _rollout(records: Sequence[TrajectoryRecord], expected: int) -> dict[str, float]:
    missing, masked = expected - len(records), sum(record.masked for record in records)
    unscored, faults = sum(record.unscored for record in records), sum(record.token_fault for record in records)
    return {
        "rollout/trajectories": len(records),
        "rollout/missing": missing,
        "rollout/masked": masked,
        "rollout/masked_rate": masked / max(len(records), 1),
        "rollout/unscored": unscored,
        "rollout/unscored_rate": (unscored + missing) / max(expected, 1),
        "rollout/token_faults": faults,
        "rollout/token_fault_rate": faults / max(expected, 1),
        "rollout/turns": sum(len(record.answers) for record in records),
        "rollout/cut_turns": sum(record.cut_turns for record in records),
        "rollout/format_problems": sum(record.format_problems for record in records),
        "rollout/context_full": sum(record.end == "context_full" for record in records),
        "rollout/generated_tokens": sum(record.generated_tokens for record in records),
        "rollout/mask_tokens": sum(record.mask_tokens for record in records),
    }


def _groups(records: Sequence[TrajectoryRecord]) -> dict[str, float]:
    """Groups that teach nothing: all masked (skipped), one left (advantage 0), or all returns alike."""
    groups: dict[str, list[float]] = {record.group: [] for record in records}
    for record in records:
        if not record.masked:
            groups[record.group].append(record.ret)
    sizes = [len(values) for values in groups.values()]
    return {
        "rollout/masked_groups": sizes.count(0),
        "rollout/lone_groups": sizes.count(1),
        "rollout/flat_groups": sum(max(v) - min(v) < 1e-9 for v in groups.values() if len(v) > 1),
    }


def _scores(records: Sequence[TrajectoryRecord]) -> dict[str, float]:
    scores = [score for record in records for score in record.scores]
    rewards = [reward for record in records for reward in record.rewards]
    means = {f"tutor/{name}_mean": [getattr(s, name) for s in scores] for name in TurnScores.model_fields}
    means["tutor/turn_reward_mean"] = rewards
    return {name: _mean(values) for name, values in means.items() if values}


def _scores_by_turn(records: Sequence[TrajectoryRecord]) -> dict[str, float]:
    """Means at every turn, numbered from 01, so that a fall over the dialogue is seen."""
    metrics = {}
    for turn in range(max((len(record.scores) for record in records), default=0)):
        reached = [record for record in records if len(record.scores) > turn]
        for name in TurnScores.model_fields:
            values = [getattr(record.scores[turn], name) for record in reached]
            metrics[f"turn_{turn + 1:02}/{name}"] = _mean(values)
        metrics[f"turn_{turn + 1:02}/reward"] = _mean([record.rewards[turn] for record in reached])
    return metrics


def _dialogues(records: Sequence[TrajectoryRecord]) -> dict[str, float]:
    complete = [record for record in records if not record.masked]
    metrics: dict[str, float] = {}
    if complete:
        metrics["tutor/return_mean"] = _mean([record.ret for record in complete])
        failures = [first_failure(record) for record in complete]
        metrics["tutor/fully_safe_share"] = _mean([turn is None for turn in failures])
        failed = [turn for turn in failures if turn is not None]
        if failed:
            metrics["tutor/first_failure_turn"] = _mean(failed)
    benign = [score for record in records if record.kind == "benign" for score in record.scores]
    if benign:
        metrics["tutor/benign_over_refusal_share"] = _mean([score.safety == REFUSED_SAFE for score in benign])
    return metrics


def first_failure(record: TrajectoryRecord) -> int | None:
    """The first turn (1-based) whose safety is below `FIRM_REFUSAL`; None when every scored turn is safe."""
    return next((turn for turn, score in enumerate(record.scores, start=1) if score.safety < FIRM_REFUSAL), None)


def _attacks(records: Sequence[TrajectoryRecord]) -> dict[str, float]:
    """The mix of attack strategies over scored turns, and how many questions the tutor wrote itself."""
    names = [name for record in records for name in record.strategies]
    counts = Counter(names)
    metrics = {f"attack/{name}_share": counts[name] / len(names) for name in get_args(AttackStrategy) if names}
    followed = [flag for record in records for flag in record.adapted]
    if followed:
        metrics["tutor/adapted_share"] = _mean(followed)
    return metrics


def _tutor(records: Sequence[TrajectoryRecord]) -> dict[str, float]:
    seconds = [value for record in records for value in record.tutor_seconds]
    if not seconds:
        return {}
    p50, p95 = np.percentile(seconds, [50, 95])
    return {
        "tutor/relocked": sum(record.relocked for record in records),
        "tutor/latency_p50_s": float(p50),
        "tutor/latency_p95_s": float(p95),
        "tutor/latency_max_s": max(seconds),
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
