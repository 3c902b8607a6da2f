"""Group-relative advantages without division by the standard deviation (Eq. 20), safe against masked and NaN returns.

Pure functions: `group_advantages` (credit: trajectory, the paper) and `turn_advantages` (credit: turn, beyond it).
`safer_steer_verl.estimators` hands them to verl.
"""

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import Any

STD_EPSILON = 1e-6
ZERO = 2.0**-126  # a turn's reward of 0 among token rewards, where 0 means that no turn ends; float32's smallest


def group_advantages(
    returns: Sequence[float],
    groups: Sequence[Hashable],
    masked: Sequence[bool] | None = None,
    *,
    divide_by_std: bool = False,
) -> list[float]:
    """A_i = R_i - mean of R over the unmasked trajectories of i's group.

    Args:
        returns: R of N trajectories. A value that is not finite masks its trajectory.
        groups: N group keys: trajectories of one prompt share a key.
        masked: N flags; a masked trajectory leaves its group *before* the mean is taken.
        divide_by_std: divide by the group's sample standard deviation too (the released code; the paper does not).

    Returns:
        N advantages. A masked trajectory, and the only trajectory of its group, get 0.
    """
    if len(returns) != len(groups) or (masked is not None and len(masked) != len(returns)):
        raise ValueError(f"lengths differ: {len(returns)} returns, {len(groups)} groups")
    flags = [bool(m) for m in masked] if masked is not None else [False] * len(returns)
    usable = [not flag and math.isfinite(value) for flag, value in zip(flags, returns, strict=True)]
    members: dict[Hashable, list[float]] = defaultdict(list)
    for value, group, use in zip(returns, groups, usable, strict=True):
        if use:
            members[group].append(value)
    advantages = []
    for value, group, use in zip(returns, groups, usable, strict=True):
        others = members[group]
        if not use or len(others) < 2:
            advantages.append(0.0)
            continue
        mean = math.fsum(others) / len(others)
        advantage = value - mean
        if divide_by_std:
            variance = math.fsum((item - mean) ** 2 for item in others) / (len(others) - 1)
            advantage /= math.sqrt(variance) + STD_EPSILON
        advantages.append(advantage)
    return advantages


def turn_advantages(
    rewards: Sequence[Sequence[float]],
    groups: Sequence[Hashable],
    masked: Sequence[bool] | None = None,
    *,
    divide_by_std: bool = False,
) -> list[list[float]]:
    """A_{i,t} = G_{i,t} - mean of G_{j,t} over the group's unmasked trajectories with a turn t, G_t = sum_{k>=t} r~_k.

    A turn is credited with what follows from it and not with what came before. Beyond the paper, whose tokens all
    share one A.

    Args:
        rewards: r~_1 .. r~_T of N trajectories, T may differ. One value that is not finite masks its trajectory.
        groups: N group keys.
        masked: N flags.
        divide_by_std: as in `group_advantages`, for each turn by itself.

    Returns:
        N lists of T advantages; 0 for a masked trajectory, and for a turn that no other trajectory of the group has.
    """
    flags = [bool(m) for m in masked] if masked is not None else [False] * len(rewards)
    to_go: list[float] = []
    keys: list[Hashable] = []
    left_out: list[bool] = []
    for values, group, flag in zip(rewards, groups, flags, strict=True):
        broken = flag or not all(math.isfinite(value) for value in values)
        for turn in range(len(values)):
            to_go.append(math.nan if broken else math.fsum(values[turn:]))
            keys.append((group, turn))
            left_out.append(broken)
    flat = iter(group_advantages(to_go, keys, left_out, divide_by_std=divide_by_std))
    return [[next(flat) for _ in values] for values in rewards]


def turn_spans(mask: Sequence[int], rewards: Sequence[float]) -> list[tuple[int, int, float]]:
    """The turns of one row: (start, stop, reward), positions in the response.

    A turn is a run of generated tokens (mask 1), its reward the sum of the token rewards inside. An answer without any
    token has its reward on the end token that stands for it (mask 0): an empty span, `start == stop`. There a reward of
    0 comes as `ZERO`: verl gives an estimator no other sign that a turn is there.
    """
    spans: list[list[Any]] = []
    inside = False
    for position, (generated, reward) in enumerate(zip(mask, rewards, strict=True)):
        if generated and not inside:
            spans.append([position, position, 0.0])
        if generated:
            spans[-1][1] = position + 1
            spans[-1][2] += reward
        elif reward:
            spans.append([position, position, reward])
        inside = bool(generated)
    return [(start, stop, reward) for start, stop, reward in spans]
