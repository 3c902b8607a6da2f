"""Group-relative advantages without division by the standard deviation (Eq. 20), safe against masked and NaN returns.

`group_advantages` (credit: trajectory, the paper) and `turn_advantages` (credit: turn, beyond it) are pure.
`safer_steer_trajectory` and `safer_steer_turn` are the estimators that verl calls (`algorithm.adv_estimator`);
`register` makes them known to verl in the process that calls it (the trainer does).
"""

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import Any

STD_EPSILON = 1e-6


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
    token has its reward on the end token that stands for it (mask 0): an empty span, `start == stop`.
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


def safer_steer_trajectory(
    token_level_rewards: Any, response_mask: Any, index: Any, config: Any = None, **_unused: Any
) -> tuple[Any, Any]:
    """Verl's advantage estimator interface over `group_advantages`: all generated tokens of a row share its A.

    A trajectory is masked when its `response_mask` holds no 1: the agent loop writes such a mask for a trajectory
    with an unscored turn, and verl's padding rows have one too.

    Args:
        token_level_rewards: (batch, response length); the row's sum is R, NaN for a masked row.
        response_mask: (batch, response length); 1 for generated tokens.
        index: (batch,) the prompt's uid: the group key.
        config: verl's AlgoConfig; `norm_adv_by_std_in_grpo` true divides by the standard deviation.

    Returns:
        (advantages, returns), both (batch, response length): the row's advantage on its generated tokens, 0 elsewhere.
    """
    import torch

    returns = token_level_rewards.sum(dim=-1).tolist()
    masked = (response_mask.sum(dim=-1) == 0).tolist()
    values = group_advantages(returns, list(index), masked, divide_by_std=_divides(config))
    column = torch.tensor(values, dtype=torch.float32).to(response_mask.device).unsqueeze(-1)
    advantages = column * response_mask
    return advantages, advantages


def safer_steer_turn(
    token_level_rewards: Any, response_mask: Any, index: Any, config: Any = None, **_unused: Any
) -> tuple[Any, Any]:
    """Verl's advantage estimator interface over `turn_advantages`: the generated tokens of a turn share its A.

    Args:
        token_level_rewards: (batch, response length); r~_t on a token of turn t, see `turn_spans`.
        response_mask: as in `safer_steer_trajectory`.
        index: as in `safer_steer_trajectory`.
        config: as in `safer_steer_trajectory`.

    Returns:
        (advantages, returns), both (batch, response length).
    """
    import torch

    masked = (response_mask.sum(dim=-1) == 0).tolist()
    rows = zip(response_mask.tolist(), token_level_rewards.tolist(), strict=True)
    spans = [turn_spans(mask, rewards) for mask, rewards in rows]
    rewards = [[reward for _, _, reward in row] for row in spans]
    values = turn_advantages(rewards, list(index), masked, divide_by_std=_divides(config))
    advantages = torch.zeros_like(response_mask, dtype=torch.float32)
    for number, (row, row_values) in enumerate(zip(spans, values, strict=True)):
        for (start, stop, _), value in zip(row, row_values, strict=True):
            advantages[number, start:stop] = value
    return advantages, advantages


ESTIMATORS = {estimator.__name__: estimator for estimator in (safer_steer_trajectory, safer_steer_turn)}


def register() -> None:
    """Makes our estimators known to verl in this process."""
    from verl.trainer.ppo.core_algos import register_adv_est

    for name, estimator in ESTIMATORS.items():
        register_adv_est(name)(estimator)


def _divides(config: Any) -> bool:
    return bool(config.get("norm_adv_by_std_in_grpo", False)) if config is not None else False
