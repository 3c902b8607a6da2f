"""verl's interface to our advantages: the estimators that `algorithm.adv_estimator` names, on torch tensors.

`register` makes them known to verl in the process that calls it (the trainer does).
"""

from typing import Any

from safer_steer_verl.utils.advantage import group_advantages, turn_advantages, turn_spans


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
