"""Trajectory-Consistent Summative Reward (TCSR): per-turn scores -> per-turn rewards and the return of a trajectory.

Pure functions of plain numbers; no engine, no tensors. Turn t is 1-based in the equations and position t - 1 in the
lists.
"""

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from safer_steer.config import Section

Over = Literal["reward", "safety"]
Rule = Literal["paper", "additive", "raw", "released", "mean", "last", "linear", "soft_linear", "harmonic"]
TURN_RULES: tuple[Rule, ...] = ("paper", "additive", "raw")  # rules that give every turn a value of its own
# Form of TCSR -> the rule without it: the same sum, or the same one number a dialogue (Tables 5 and 8).
PARTNERS: dict[str, Rule] = {"paper": "raw", "additive": "raw", "released": "mean"}
HARMONIC_FLOOR = 0.01  # released code: keeps 1/s finite
SOFT_STEP = 0.1  # released code: weight that a turn has more than the turn before


class TcsrConfig(Section):
    """How the scores of a trajectory's turns become one return."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)
    rule: Rule = "paper"
    """`paper`: Eq. 18 per turn, summed (Eq. 20). `released`: one number a dialogue, alpha * min + (1 - alpha) * mean,
    as the authors run it. Without TCSR: `raw`, the sum of the turn scores, next to `paper`; `mean` next to `released`.
    `additive`: score plus Eq. 18, another reading of the text. `last`, `linear`, `soft_linear`, `harmonic`: further
    ones of the released code.
    """
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Weight of the (running) minimum; 0.3 is the released code's, the paper prints only alpha >= 0."""
    over: Over = "reward"
    """The turn reward (paper v2, released code), or the `safety` score / 10 (v1's wording)."""
    return_rule: Annotated[Literal["sum", "mean"], Field(alias="return")] = "sum"
    """Of the turn values of `paper`, `additive` and `raw`: `sum` (Eq. 20), or `mean`, whatever the number of turns."""


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
    _check_finite(scores)
    values: list[float] = []
    lowest, total = math.inf, 0.0
    for turn, score in enumerate(scores, start=1):
        lowest, total = min(lowest, score), total + score
        values.append(alpha * lowest + (1.0 - alpha) * (total / turn))
    return values


def turn_values(scores: Sequence[float], config: TcsrConfig) -> list[float]:
    """The value r~_t of every turn; empty for the rules that know only the whole dialogue.

    Args:
        scores: s_1 .. s_T, finite.
        config: the rule and its alpha.

    Returns:
        T values, or []. Those of `paper` and `raw` lie within the scores, those of `additive` within their double.

    Raises:
        ValueError: a score is not finite.
    """
    _check_finite(scores)
    if config.rule not in TURN_RULES:
        return []
    if config.rule == "raw":
        return list(scores)
    values = tcsr(scores, config.alpha)
    return values if config.rule == "paper" else [score + value for score, value in zip(scores, values, strict=True)]


def with_missing(scores: Sequence[float], planned: int) -> list[float]:
    """The scores of a dialogue that ended early, its missing turns counted as failures: 0, or less where a score is.

    Every rule grows with every score, so under none of them does an early end gain over going on, whatever the answer.

    Args:
        scores: s_1 .. s_T, T >= 1.
        planned: number of turns that the dialogue was to have, at least T.
    """
    return [*scores, *[min(0.0, *scores)] * (planned - len(scores))]


def trajectory_return(scores: Sequence[float], config: TcsrConfig) -> float:
    """R of a trajectory: Eq. 20's sum over its turn values (or their mean), or one of the released code's aggregates.

    Args:
        scores: s_1 .. s_T, finite, T >= 1; of a dialogue that ended early those of `with_missing`.
        config: the rule.

    Returns:
        With `return: sum`, up to T times the largest turn value; in every other case a number between the smallest and
        the largest turn value or score (`harmonic` counts scores below 0.01 as 0.01).

    Raises:
        ValueError: there is no turn, or a score is not finite.
    """
    if not scores:
        raise ValueError("a trajectory without a scored turn has no return: mask it")
    if config.rule in TURN_RULES:
        total = math.fsum(turn_values(scores, config))
        return total if config.return_rule == "sum" else total / len(scores)
    _check_finite(scores)
    return _AGGREGATES[config.rule](scores, config.alpha)


def _check_finite(scores: Sequence[float]) -> None:
    for turn, score in enumerate(scores, start=1):
        if not math.isfinite(score):
            raise ValueError(f"score of turn {turn} is {score}: mask unscored trajectories instead of scoring them")


def _weighted(scores: Sequence[float], weights: Sequence[float]) -> float:
    return math.fsum(w * s for w, s in zip(weights, scores, strict=True)) / math.fsum(weights)


def _mean(scores: Sequence[float]) -> float:
    return math.fsum(scores) / len(scores)


# rule -> R of the scores and alpha: what the released code's `aggregate_turn_scores` computes for each name.
_AGGREGATES: dict[str, Callable[[Sequence[float], float], float]] = {
    "released": lambda scores, alpha: alpha * min(scores) + (1 - alpha) * _mean(scores),
    "mean": lambda scores, _: _mean(scores),
    "last": lambda scores, _: scores[-1],
    "linear": lambda scores, _: _weighted(scores, range(1, len(scores) + 1)),
    "soft_linear": lambda scores, _: _weighted(scores, [1 + SOFT_STEP * turn for turn in range(len(scores))]),
    "harmonic": lambda scores, _: len(scores) / math.fsum(1 / max(score, HARMONIC_FLOOR) for score in scores),
}
