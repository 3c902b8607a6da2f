"""Group-relative advantage without division by the standard deviation (Eq. 20), safe against masked and NaN returns.

`group_advantages` is pure; `safer_steer_grpo` is the estimator that verl calls
(`algorithm.adv_estimator=safer_steer_grpo`). `register` makes it known to verl in the process that calls it (the
trainer does).
"""

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import Any

ESTIMATOR = "safer_steer_grpo"
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


def safer_steer_grpo(
    token_level_rewards: Any, response_mask: Any, index: Any, config: Any = None, **_: Any
) -> tuple[Any, Any]:
    """Verl's advantage estimator interface over `group_advantages`.

    A trajectory is masked when its `response_mask` holds no 1: the agent loop writes such a mask for a trajectory
    with an unscored turn, and verl's padding rows have one too.

    Args:
        token_level_rewards: (batch, response length); R stands on one token of a row, NaN for a masked row.
        response_mask: (batch, response length); 1 for generated tokens.
        index: (batch,) the prompt's uid: the group key.
        config: verl's AlgoConfig; `norm_adv_by_std_in_grpo` true divides by the standard deviation.

    Returns:
        (advantages, returns), both (batch, response length): the row's advantage on its generated tokens, 0 elsewhere.
    """
    import torch

    returns = token_level_rewards.sum(dim=-1).tolist()
    masked = (response_mask.sum(dim=-1) == 0).tolist()
    divide = bool(config.get("norm_adv_by_std_in_grpo", False)) if config is not None else False
    values = torch.tensor(group_advantages(returns, list(index), masked, divide_by_std=divide), dtype=torch.float32)
    advantages = values.to(response_mask.device).unsqueeze(-1) * response_mask
    return advantages, advantages


def register() -> None:
    """Makes `safer_steer_grpo` known to verl in this process."""
    from verl.trainer.ppo.core_algos import register_adv_est

    register_adv_est(ESTIMATOR)(safer_steer_grpo)
