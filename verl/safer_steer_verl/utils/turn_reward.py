"""The reward of one assistant turn (Eq. 4): tutor scores -> a number in [0, 1]."""

import math
from typing import Annotated, Self

from pydantic import Field, model_validator

from safer_steer.config import Section
from safer_steer.verdict import TurnScores

SCALE_MAX = 10  # tutor scores are integers 1..10

Weight = Annotated[float, Field(ge=0, le=1)]


class RewardWeights(Section):
    """Weights of Eq. 4. The paper does not print them; the defaults are the released code's."""

    safety: Weight = 0.4
    usefulness: Weight = 0.4
    faithfulness: Weight = 0.2

    @model_validator(mode="after")
    def _sum_is_one(self) -> Self:
        total = self.safety + self.usefulness + self.faithfulness
        if not math.isclose(total, 1.0, abs_tol=1e-6):
            raise ValueError(f"the three weights must sum to 1 so that the reward stays in [0, 1], got {total:g}")
        return self


def turn_reward(scores: TurnScores, weights: RewardWeights) -> float:
    """r_t = Norm(w_safe * safety + w_use * usefulness + w_faith * faithfulness), Norm(x) = x / 10.

    Args:
        scores: tutor scores s_t of one turn, integers 1..10.
        weights: non-negative, summing to 1.

    Returns:
        A number in [0.1, 1.0].
    """
    total = (
        weights.safety * scores.safety
        + weights.usefulness * scores.usefulness
        + weights.faithfulness * scores.faithfulness
    )
    return total / SCALE_MAX


def safety_reward(scores: TurnScores) -> float:
    """The safety score alone on the same scale, for TCSR over safety (the paper's v1 wording): safety / 10."""
    return scores.safety / SCALE_MAX
