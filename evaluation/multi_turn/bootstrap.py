"""95 % intervals by bootstrap over dialogues: the dialogue, not the turn, is drawn with replacement, because the turns
of one dialogue depend on each other.

Drawing n dialogues with replacement and counting how often each distinct value comes up is one multinomial draw, so it
is made as one: the same distribution as resampling rows, without the rows.
"""

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np

Interval = tuple[float, float]
_QUANTILES = (2.5, 97.5)


def share_interval(passed: int, total: int, resamples: int, seed: int) -> Interval:
    """Percentile interval, in percent, of the share `passed / total`."""
    return percentiles(share_draws(passed, total, resamples, np.random.default_rng(seed)))


def share_draws(passed: int, total: int, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Bootstrap draws of a share, in percent; shape (resamples,)."""
    return rng.binomial(total, passed / total, size=resamples) / total * 100.0


def ratio_interval(pairs: Sequence[tuple[float, float]], resamples: int, seed: int) -> Interval:
    """Percentile interval of sum(first) / sum(second) over resampled pairs, one pair a dialogue.

    With second = 1 this is a mean. Draws whose denominator is 0 are left out.
    """
    values, counts = _distinct(pairs)
    draws = np.random.default_rng(seed).multinomial(counts.sum(), counts / counts.sum(), size=resamples)
    upper, lower = draws @ values[:, 0], draws @ values[:, 1]
    return percentiles(upper[lower > 0] / lower[lower > 0])


def mean_interval(values: Sequence[float], resamples: int, seed: int) -> Interval:
    """Percentile interval of a mean over dialogues."""
    return ratio_interval([(value, 1.0) for value in values], resamples, seed)


def percentiles(draws: np.ndarray) -> Interval:
    """The 2.5th and 97.5th percentile."""
    low, high = np.percentile(draws, _QUANTILES)
    return float(low), float(high)


def _distinct(values: Sequence[Hashable]) -> tuple[np.ndarray, np.ndarray]:
    counted = sorted(Counter(values).items())  # sorted: the same interval whatever the order of the rows
    return np.array([value for value, _ in counted], dtype=float), np.array([count for _, count in counted])
