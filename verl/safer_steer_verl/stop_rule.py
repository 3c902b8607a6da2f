"""When a run must stop: too few usable trajectories in a step, and whose fault that is, or a gradient that is none."""

import math
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from safer_steer.rows import too_many
from safer_steer_verl.trajectory import TrajectoryRecord

AGAIN = "then run the same command again: it continues from the last checkpoint"


def too_few(records: Collection[TrajectoryRecord], expected: int, settings: Any) -> str | None:
    """Why the run must stop, with the most frequent reason and what to do; None when it may continue.

    Args:
        records: the trajectories that came back.
        expected: how many were asked for.
        settings: the `safer_steer` section, for `max_unscored_rate` and `max_token_fault_rate`.
    """
    if failed := next((record for record in records if record.reward_fault), None):
        return (
            f"{failed.reason}; no reward is made up, so the run ends. With the same file, the same command continues "
            "from the last checkpoint; a changed file is another run: give another output"
        )
    unscored = [record for record in records if record.unscored]
    faults = [record for record in records if record.token_fault]
    missing = max(expected - len(records), 0)
    lost, limit = len(unscored) + missing, settings.max_unscored_rate
    if too_many(lost, expected, limit):
        share = f"{lost / expected:.0%} of {expected} trajectories"
        said = f"{share} have no score, safer_steer.max_unscored_rate is {limit:.0%}"
        failed = [record for record in unscored if record.end == "rollout_failed"]
        if 2 * (number := len(failed) + missing) <= lost:
            return f"{said}; most often: {_reason(unscored)}; see to the tutor, {AGAIN}"
        return (
            f"{said}; {number} of them because the rollout engine failed, not the tutor; most often: "
            f"{_reason(failed)}; see log/verl.log in the run folder, {AGAIN}"
        )
    limit = settings.max_token_fault_rate
    if too_many(len(faults), expected, limit):
        share = f"{len(faults) / expected:.0%} of {expected} trajectories"
        return (
            f"the tokens of {share} are not what the chat template says, "
            f"safer_steer.max_token_fault_rate is {limit:.0%}; most often: {_reason(faults)}; the tutor has no part in "
            "it: check that tokenizer and chat template in actor_rollout_ref.model.path belong to the model; "
            f"safer_steer.token_check=warn only logs them; {AGAIN}"
        )
    return None


def not_finite(metrics: Mapping[str, Any]) -> str | None:
    """Why the run must stop where a step's gradient is NaN or infinite; None when it is finite, or was not measured.

    verl skips the update then, says so in its log only and goes on: the run would end as if it had learned.
    """
    norm = float(metrics.get("actor/grad_norm", 0.0))
    if math.isfinite(norm):
        return None
    return (
        f"the gradient's norm (actor/grad_norm) is {norm}, not a finite number: verl skipped an update; the weights "
        "are as before it; look at this step's rows in metrics.jsonl (actor/kl_loss, "
        f"training/rollout_probs_diff_mean) and trajectories.jsonl, {AGAIN}. If it fails again: a lower "
        "actor_rollout_ref.actor.optim.lr, with another output"
    )


def _reason(records: Collection[TrajectoryRecord]) -> str:
    found = Counter(record.reason for record in records if record.reason).most_common(1)
    return found[0][0] if found else "no reason recorded"
