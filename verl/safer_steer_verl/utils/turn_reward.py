"""The reward of one assistant turn (Eq. 4): tutor scores -> a number in [0, 1]; the released code's two additions.

A function of the user's takes its place where the config names one (`own_reward`).
"""

import math
import re
from collections.abc import Sequence
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from safer_steer.config import Operational, Section
from safer_steer.rubric import SCALE_MAX, TurnScores

_TOKEN = re.compile(r"\w+|[^\w\s]")  # as the released code counts: a word, or one mark
Weight = Annotated[float, Field(ge=0, le=1)]


class FormatBonus(Section):
    """Extra reward for an answer in the expected tags (released code; not in the paper)."""

    bonus: Weight = 0.0
    """Added to the turn's reward; 0 is off."""
    tags: Annotated[tuple[str, ...], Field(min_length=1)] = ("thinking", "answer")
    """Tag names, in their order: <thinking>...</thinking><answer>...</answer> in the released data."""


class RepetitionPenalty(Section):
    """Less reward for an answer that repeats itself (released code; not in the paper)."""

    penalty: Weight = 0.0
    """Times the share of repeated n-grams; 0 is off, 0.2 is the released code's."""
    n: Annotated[int, Field(ge=1)] = 3
    """Tokens of an n-gram, which are words and punctuation marks; released code."""
    min_tokens: Annotated[int, Field(ge=1)] = 24
    """Shorter answers are left alone; released code."""


class RewardConfig(Section):
    """Weights of Eq. 4 and the two additions. The paper does not print the weights: they are the released code's.

    In a config, a text `path.py:function` stands for `{function: path.py:function}`.
    """

    function: Annotated[str | None, Operational] = None
    """path.py:function, the user's reward, in whose place the other values are of no account. Its name and the file's
    content count, not where it lies.
    """
    safety: Weight = 0.4
    """w_safe; released code, as the other two."""
    usefulness: Weight = 0.4
    """w_use."""
    faithfulness: Weight = 0.2
    """w_faith."""
    format: FormatBonus = FormatBonus()
    repetition: RepetitionPenalty = RepetitionPenalty()

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return {"function": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _sum_is_one(self) -> Self:
        total = self.safety + self.usefulness + self.faithfulness
        if not math.isclose(total, 1.0, abs_tol=1e-6):
            raise ValueError(f"the three weights must sum to 1 so that the reward stays in [0, 1], got {total:g}")
        return self


def turn_reward(scores: TurnScores, answer: str, config: RewardConfig) -> float:
    """r_t = Norm(w_safe * safety + w_use * usefulness + w_faith * faithfulness), Norm(x) = x / 10, plus the additions.

    Args:
        scores: tutor scores s_t of one turn, integers 1..10.
        answer: the assistant turn's text; read only by an addition that is on.
        config: weights, non-negative and summing to 1, and the additions.

    Returns:
        A number in [0.1, 1.0]; with additions, in [0, 1.0 + bonus].
    """
    total = config.safety * scores.safety + config.usefulness * scores.usefulness
    reward = (total + config.faithfulness * scores.faithfulness) / SCALE_MAX
    if config.format.bonus:
        reward += config.format.bonus * in_tags(answer, config.format.tags)
    repetition = config.repetition
    if repetition.penalty and len(tokens := _TOKEN.findall(answer.lower())) >= repetition.min_tokens:
        reward = max(0.0, reward - repetition.penalty * repeated_share(tokens, repetition.n))
    return reward


def in_tags(answer: str, tags: Sequence[str]) -> bool:
    """Whether an answer has each tag exactly once, opened and closed, in order: the released code's formula."""
    marks = [mark for tag in tags for mark in (f"<{tag}>", f"</{tag}>")]
    places = [answer.find(mark) for mark in marks]
    return all(answer.count(mark) == 1 for mark in marks) and places == sorted(places)


def repeated_share(tokens: Sequence[str], n: int) -> float:
    """The share, in [0, 1), of the n-grams that occurred earlier among the tokens; 0 without any n-gram."""
    grams = [tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def safety_reward(scores: TurnScores) -> float:
    """The safety score alone on the same scale, for TCSR over safety (the paper's v1 wording): safety / 10."""
    return scores.safety / SCALE_MAX
