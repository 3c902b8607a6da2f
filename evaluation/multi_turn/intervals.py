"""95 % intervals over dialogues that hold at 0 and 100 % and for few dialogues: they never have width 0.

The dialogue is what is drawn, neither the turn nor the sample of a dialogue that is played several times, because the
turns and the samples of one dialogue depend on each other: more samples alone make no interval narrower than the
dialogues allow. A share has the
exact interval of Clopper and Pearson. A mean of values between two bounds has its generalisation (Gaffke): each draw
weighs the dialogues by a Dirichlet distribution, as the Bayesian bootstrap does, and holds one more dialogue, at the
scale's lowest value for the lower bound and at its highest for the upper one. For values of 0 and 1 both are the same.
"""

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np

Interval = tuple[float, float]
Draws = tuple[np.ndarray, np.ndarray]  # of the lower and of the upper bound, each (resamples,)
_TAIL = 0.025


def share_interval(passed: int, total: int) -> Interval:
    """Exact interval, in percent, of the share `passed / total`."""
    from scipy.stats import beta  # a second of imports that only the report needs

    low = float(beta.ppf(_TAIL, passed, total - passed + 1)) if passed else 0.0
    high = float(beta.ppf(1 - _TAIL, passed + 1, total - passed)) if passed < total else 1.0
    return 100.0 * low, 100.0 * high


def rate_interval(shares: Sequence[float], resamples: int, seed: int) -> Interval:
    """Interval, in percent, of a pass rate; a value is the share, in [0, 1], of a dialogue's samples that pass."""
    if passed := _whole(shares):
        return share_interval(*passed)
    low, high = mean_interval(shares, (0.0, 1.0), resamples, seed)
    return 100.0 * low, 100.0 * high


def rate_draws(shares: Sequence[float], resamples: int, rng: np.random.Generator) -> Draws:
    """Draws in percent of the bounds of a pass rate, for means of several."""
    if passed := _whole(shares):
        return share_draws(*passed, resamples, rng)
    low, high = _mean_draws(shares, (0.0, 1.0), resamples, rng)
    return 100.0 * low, 100.0 * high


def _whole(shares: Sequence[float]) -> tuple[int, int] | None:
    """Passed and all of the dialogues, where each passes with all of its samples or with none."""
    return (int(sum(shares)), len(shares)) if set(shares) <= {0.0, 1.0} else None


def share_draws(passed: int, total: int, resamples: int, rng: np.random.Generator) -> Draws:
    """Draws in percent whose quantiles are the exact bounds, for means of several shares."""
    low = rng.beta(passed, total - passed + 1, resamples) if passed else np.zeros(resamples)
    high = rng.beta(passed + 1, total - passed, resamples) if passed < total else np.ones(resamples)
    return 100.0 * low, 100.0 * high


def mean_interval(values: Sequence[float], bounds: Interval, resamples: int, seed: int) -> Interval:
    """Interval of a mean over dialogues, of values within `bounds`."""
    return quantiles(_mean_draws(values, bounds, resamples, np.random.default_rng(seed)))


def _mean_draws(values: Sequence[float], bounds: Interval, resamples: int, rng: np.random.Generator) -> Draws:
    distinct, weights, extra = _weights(values, resamples, rng)
    total, one_more = weights @ distinct, weights.sum(axis=1) + extra
    return (total + extra * bounds[0]) / one_more, (total + extra * bounds[1]) / one_more


def ratio_interval(pairs: Sequence[tuple[int, int]], resamples: int, seed: int) -> Interval:
    """Interval of sum(first) / sum(second), where 0 <= first <= second are counts of one dialogue's turns, of all of
    its samples together.

    The one dialogue more is as long as the longest.
    """
    distinct, weights, extra = _weights(pairs, resamples, np.random.default_rng(seed))
    first, second = weights @ distinct[:, 0], weights @ distinct[:, 1]
    more = extra * distinct[:, 1].max()
    return quantiles((first / (second + more), (first + more) / (second + more)))


def quantiles(draws: Draws) -> Interval:
    """The 2.5th percentile of the lower bound's draws and the 97.5th of the upper one's."""
    return float(np.quantile(draws[0], _TAIL)), float(np.quantile(draws[1], 1 - _TAIL))


def _weights(
    values: Sequence[Hashable], resamples: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The distinct values, their weights (resamples, values) before division by the sum, and those of one more."""
    counted = sorted(Counter(values).items())  # sorted: the same interval whatever the order of the rows
    counts = np.array([count for _, count in counted], dtype=float)
    weights = rng.standard_gamma(counts, size=(resamples, len(counts)))
    return np.array([value for value, _ in counted], dtype=float), weights, rng.standard_exponential(resamples)
