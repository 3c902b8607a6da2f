"""Intervals hold where it matters most: at 0 and 100 %, for few dialogues, for means and for differences."""

import numpy as np
import pytest
from scipy.stats import beta

from evaluation.multi_turn.aggregate import PassConfig, average, dialogue_table, rates, turn_table
from evaluation.multi_turn.intervals import (
    mean_interval,
    quantiles,
    rate_interval,
    ratio_interval,
    share_draws,
    share_interval,
)
from evaluation.multi_turn.paired import paired
from evaluation.multi_turn.survival import kaplan_meier, log_rank

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


# How the samples of one dialogue hang together: the chance that a dialogue's samples pass is drawn from Beta(a, b).
DIALOGUES = {
    "all alike": (0.05, 0.02),
    "much alike": (1.0, 0.5),
    "hardly alike": (40.0, 20.0),
    "nearly all pass": (19.0, 0.5),
}


def clustered(n: int, repeats: int, kind: str, runs: int, seed: int) -> tuple[float, float]:
    """How often the interval holds the true pass rate when n dialogues are played so often each, and how often one does
    that takes every sample for a dialogue.
    """
    (a, b), rng = DIALOGUES[kind], np.random.default_rng(seed)
    held = naive = 0
    for run in range(runs):
        passed = rng.binomial(repeats, rng.beta(a, b, n))
        intervals = rate_interval((passed / repeats).tolist(), 400, run), share_interval(passed.sum(), n * repeats)
        inside = [low <= 100 * a / (a + b) <= high for low, high in intervals]
        held, naive = held + inside[0], naive + inside[1]
    return held / runs, naive / runs


@pytest.mark.parametrize("kind", DIALOGUES)
@pytest.mark.parametrize("n", [5, 40])
def test_samples_of_a_dialogue_do_not_make_the_interval_too_narrow(n, kind):
    held, naive = clustered(n, repeats=8, kind=kind, runs=300, seed=2)
    assert held >= 0.92  # 0.95 less two and a half standard errors
    if kind in ("all alike", "much alike"):
        assert naive < 0.85, "an interval over samples would have been wrong here"


def test_more_samples_narrow_what_chance_there_is_and_no_more():
    """With the same rate, samples that differ tell more about their dialogue, samples that are alike tell nothing."""

    def width(shares):
        low, high = rate_interval(shares, 20_000, 0)
        return high - low

    once = width([0.0] * 10 + [1.0] * 10)
    assert width([0.0] * 10 + [1.0] * 10) == once  # eight alike samples each
    assert width([0.375] * 10 + [0.625] * 10) < 0.8 * once


def test_samples_that_are_all_alike_leave_every_interval_and_test_as_it_was(verdicts):
    """Two models, 12 dialogues; each played once, and five times with the same end."""
    ends = {"a": [(3, 3)] * 4, "b": [(3, 3), (-3, 0)], "c": [(3, 1), (2, 2), (-1, 0), (0, 1)]}

    def tables(repeats):
        found = []
        for model in ("bbbbccccaaaa", "aaaaaacbaaaa"):
            rows = []
            for number, end in enumerate(model):
                for repeat in range(repeats):
                    more = {"sample_of": f"d{number}"} if repeat else {}
                    name = f"d{number}#{repeat + 1}" if repeat else f"d{number}"
                    rows += verdicts(name, ends[end], kind="benign", length=len(ends[end]), **more)
            found.append(dialogue_table(turn_table(rows), PassConfig()))
        return found

    def numbers(repeats):
        first, second = tables(repeats)
        passing, curve = PassConfig(), kaplan_meier(first)
        found = rates(first, passing, means=True)
        kept = {name: value for name, value in found.items() if name.endswith("_ci") or name in ("safe", "n_dialogues")}
        both = paired(first, second, passing)
        kept |= {"band": (curve.lower, curve.upper), "log_rank": log_rank(first, second)["p_value"]}
        kept |= {"rates": both["rates"], "means": both["means"]}
        return kept | {"average": average([found], passing, [first])["safe_ci"]}

    once, often = numbers(1), numbers(5)
    assert often["n_dialogues"] == 12
    # A log-rank statistic has a hypergeometric variance, which five times as many rows change a little.
    assert often.pop("log_rank") == pytest.approx(once.pop("log_rank"), abs=0.02)
    assert often == once


def test_a_model_with_more_samples_is_compared_by_all_of_them_and_tested_by_as_many(verdicts):
    """A passes every dialogue it plays once; B the first sample of each, and no further one."""

    def table(repeats):
        rows = []
        for number in range(8):
            for repeat in range(1, repeats + 1):
                more = {"sample_of": f"d{number}"} if repeat > 1 else {}
                name = f"d{number}#{repeat}" if repeat > 1 else f"d{number}"
                rows += verdicts(name, [(3, 3) if repeat == 1 else (-3, 0)], **more)
        return dialogue_table(turn_table(rows), PassConfig())

    once, often = table(1), table(4)
    safe = paired(once, often, PassConfig())["rates"]["safe"]
    assert safe["difference"] == rates(often, PassConfig())["safe"] - rates(once, PassConfig())["safe"] == -75.0
    assert (safe["only_a"], safe["only_b"], safe["p_value"]) == (0, 0, 1.0), "of unequal numbers the test is none"
