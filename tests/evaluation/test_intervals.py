"""Intervals hold where it matters most: at 0 and 100 %, for few dialogues, for means and for differences."""

import numpy as np
import pytest
from scipy.stats import beta

from evaluation.multi_turn.intervals import mean_interval, quantiles, ratio_interval, share_draws, share_interval

# Scores of one dialogue: chance -> value, the scale's bounds. Among them the shapes that a plain bootstrap fails on.
SHAPES = {
    "nearly all 3": ({3.0: 0.95, 1.5: 0.04, -3.0: 0.01}, (-3.0, 3.0)),
    "half and half": ({3.0: 0.5, -3.0: 0.5}, (-3.0, 3.0)),
    "narrow": ({2.0: 0.5, 2.5: 0.5}, (-3.0, 3.0)),
    "difference, mostly none": ({0.0: 0.9, 100.0: 0.07, -100.0: 0.03}, (-100.0, 100.0)),
}


def coverage(n: int, shape: str, runs: int, resamples: int, seed: int) -> float:
    """Share of samples of n dialogues whose interval holds the true mean."""
    (chances, bounds), rng = SHAPES[shape], np.random.default_rng(seed)
    values, weights = list(chances), list(chances.values())
    truth = float(np.dot(values, weights))
    held = 0
    for run in range(runs):
        low, high = mean_interval(list(rng.choice(values, n, p=weights)), bounds, resamples, run)
        held += low <= truth <= high
    return held / runs


def share_coverage(n: int, p: float) -> float:
    """Exact: the chance that the interval of Binomial(n, p) of n holds p."""
    from scipy.stats import binom

    inside = [share_interval(k, n)[0] / 100 <= p <= share_interval(k, n)[1] / 100 for k in range(n + 1)]
    return float(sum(binom.pmf(k, n, p) for k in range(n + 1) if inside[k]))


def test_three_of_three_is_no_certainty():
    assert share_interval(0, 3) == pytest.approx((0.0, 70.76), abs=0.01)
    assert share_interval(3, 3) == pytest.approx((29.24, 100.0), abs=0.01)
    assert share_interval(160, 160)[0] == pytest.approx(97.72, abs=0.01)


@pytest.mark.parametrize("n", [1, 20])
def test_a_share_is_covered_at_every_rate(n):
    assert min(share_coverage(n, p) for p in (0.0, 0.001, 0.02, 0.1, 0.5, 0.9, 0.999, 1.0)) >= 0.95


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n", [3, 25])
def test_a_mean_is_covered_for_few_dialogues(n, shape):
    assert coverage(n, shape, runs=150, resamples=400, seed=1) >= 0.9  # 0.95 less three standard errors


def test_of_zeros_and_ones_a_mean_a_ratio_and_the_draws_have_the_exact_interval():
    for passed in (0, 3, 10):
        exact = beta.ppf(0.025, passed, 11 - passed) if passed else 0.0, beta.ppf(0.975, passed + 1, 10 - passed)
        exact = tuple(1.0 if bound != bound else float(bound) for bound in exact)
        values = [1] * passed + [0] * (10 - passed)
        assert mean_interval(values, (0.0, 1.0), 40_000, 0) == pytest.approx(exact, abs=0.01)
        assert ratio_interval([(3 * value, 3) for value in values], 40_000, 0) == pytest.approx(exact, abs=0.01)
        drawn = quantiles(share_draws(passed, 10, 40_000, np.random.default_rng(0)))
        assert drawn == pytest.approx(share_interval(passed, 10), abs=1.0)
