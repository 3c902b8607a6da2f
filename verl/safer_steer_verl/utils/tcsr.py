"""Trajectory-Consistent Summative Reward (TCSR): per-turn scores -> per-turn rewards and the return of a trajectory.

Pure functions of plain numbers; no engine, no tensors. Turn t is 1-based in the equations and position t - 1 in the
lists.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from safer_steer.config import Section

Over = Literal["reward", "safety"]
ReturnRule = Literal["sum", "mean", "final"]


class TcsrConfig(Section):
    """How turn scores become one return."""

    # Weight of the running minimum. 0.3: released code (the paper prints only alpha >= 0).
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.3
    # What TCSR runs over: the turn reward (paper v2 and released code) or the safety score / 10 (paper v1's wording).
    over: Over = "reward"
    # R from the TCSR values: `sum` over turns (Eq. 19), `mean` (independent of the number of turns), or `final`, the
    # value of the last turn, which is the released code's one `alpha * min + (1 - alpha) * mean` over the dialogue
    # ("min_mean").
    return_rule: ReturnRule = "sum"


def tcsr(scores: Sequence[float], alpha: float) -> list[float]:
    """Eq. 18: r~_t = alpha * m_t + (1 - alpha) * mean_t, with m_t = min_{j<=t} s_j and mean_t = (1/t) sum_{j<=t} s_j.

    One unsafe turn lowers every later value through the running minimum, so a late good turn cannot buy back an early
    breach.

    Args:
        scores: s_1 .. s_T, one finite number for every assistant turn, in order; T may be 0.
        alpha: weight of the running minimum, in [0, 1]; 0 is the running mean, 1 the running minimum.

    Returns:
        T values, each between the running minimum and the running mean of `scores`.

    Raises:
        ValueError: alpha is outside [0, 1], or a score is not finite (an unscored turn must be masked before).
    """
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"alpha must be in [0, 1], got {alpha}")
    values: list[float] = []
    lowest, total = math.inf, 0.0
    for turn, score in enumerate(scores, start=1):
        if not math.isfinite(score):
            raise ValueError(f"score of turn {turn} is {score}: mask unscored trajectories instead of scoring them")
        lowest, total = min(lowest, score), total + score
        values.append(alpha * lowest + (1.0 - alpha) * (total / turn))
    return values


def trajectory_return(values: Sequence[float], rule: ReturnRule = "sum") -> float:
    """Eq. 19: R = sum_t r~_t, or one of the configured alternatives.

    Args:
        values: TCSR values of T >= 1 turns.
        rule: "sum" (paper), "mean" or "final" (released code's min_mean when `values` come from `tcsr`).

    Raises:
        ValueError: there is no turn.
    """
    if not values:
        raise ValueError("a trajectory without a scored turn has no return: mask it")
    if rule == "final":
        return values[-1]
    total = math.fsum(values)
    return total if rule == "sum" else total / len(values)
