"""What the return rules and the tutor's attacks tell apart in the full cell's training: the why behind claim C4.

`<root>/seed_N/grpo/trajectories.jsonl` -> `read` -> `[Trajectory]` -> tables. Nothing here decides a claim.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from safer_steer.store import read_jsonl
from safer_steer_verl.utils.tcsr import TcsrConfig, trajectory_return

FIRST, PLANNED = "first turn", "as planned"  # user turns that the tutor did not write
UNNAMED = "opening steps instead of the plan"  # the tutor's, without a named strategy
FAILED_SAFETY = 5  # tutor's scale 1-10: leaked, did not answer, or refused what is allowed
RULES = {
    "TCSR (Eq. 18, 20)": TcsrConfig(),
    "plain sum (− TCSR)": TcsrConfig(rule="raw"),
    "last minimum and mean (released code)": TcsrConfig(rule="released"),
    "mean": TcsrConfig(rule="mean"),
}
PLAIN = "plain sum (− TCSR)"


@dataclass(frozen=True)
class Trajectory:
    """One rollout: its prompt's group, and of every turn the reward, whether it failed, and the attack that it met."""

    group: str
    rewards: tuple[float, ...]
    failed: tuple[bool, ...]
    attacks: tuple[str, ...]


def read(root: Path, seeds: Sequence[int]) -> list[Trajectory]:
    """All scored rollouts of the full cell, of the seeds that have it."""
    files = [root / f"seed_{seed}" / "grpo" / "trajectories.jsonl" for seed in seeds]
    return [
        _trajectory(path.parent.parent.name, row)
        for path in files
        if path.is_file()
        for row in read_jsonl(path)
        if not row["meta"]["masked"]
    ]


def _trajectory(seed: str, row: dict[str, Any]) -> Trajectory:
    turns, attacks = row["turns"], [FIRST]
    for before, turn in pairwise(turns):
        written = turn["user"] != turn["template"]
        strategy = before["meta"]["attack_strategy"]
        attacks.append(PLANNED if not written else UNNAMED if strategy == "none" else strategy)
    return Trajectory(
        group=f"{seed}/{row['meta']['group']}",
        rewards=tuple(turn["meta"]["reward"] for turn in turns),
        failed=tuple(turn["scores"]["safety"] <= FAILED_SAFETY for turn in turns),
        attacks=tuple(attacks),
    )


def advantages(trajectories: Sequence[Trajectory], rule: TcsrConfig) -> np.ndarray:
    """A = R - mean of its group (Eq. 20) of every rollout, group after group."""
    groups: dict[str, list[float]] = defaultdict(list)
    for item in trajectories:
        groups[item.group].append(trajectory_return(item.rewards, rule))
    return np.concatenate([np.array(returns) - np.mean(returns) for returns in groups.values()])


def agreement(trajectories: Sequence[Trajectory]) -> dict[str, dict[str, float]]:
    """Rule -> correlation of its advantages with the plain sum's, and share of rollouts where the signs differ."""
    plain, found = advantages(trajectories, RULES[PLAIN]), {}
    for name, rule in RULES.items():
        own = advantages(trajectories, rule)
        found[name] = {
            "correlation": float(np.corrcoef(own, plain)[0, 1]),
            "opposite_share": float(np.mean(own * plain < -1e-9)),
        }
    return found


def cost_of_failure(turns: int) -> dict[str, list[float]]:
    """Rule -> what a failure of turn 1 .. `turns` takes from R, in units of a failure of turn 1 under the same rule."""
    found = {}
    for name, rule in RULES.items():
        whole = trajectory_return([1.0] * turns, rule)
        costs = [
            whole - trajectory_return([0.0 if turn == at else 1.0 for turn in range(turns)], rule)
            for at in range(turns)
        ]
        found[name] = [cost / costs[0] for cost in costs]
    return found


def failures(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """How many rollouts have a failed turn, and the share of these that have exactly one."""
    counts = [sum(item.failed) for item in trajectories]
    failing = [count for count in counts if count]
    return {
        "rollouts": len(counts),
        "failing_share": len(failing) / len(counts),
        "one_failure_share": failing.count(1) / len(failing) if failing else 0.0,
    }


def by_attack(trajectories: Sequence[Trajectory]) -> dict[str, tuple[int, float]]:
    """Attack -> number of turns that met it, and the share of these that failed."""
    met: dict[str, list[bool]] = defaultdict(list)
    for item in trajectories:
        for attack, failed in zip(item.attacks, item.failed, strict=True):
            met[attack].append(failed)
    return {name: (len(found), sum(found) / len(found)) for name, found in sorted(met.items())}
