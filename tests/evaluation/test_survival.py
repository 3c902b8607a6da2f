"""Survival analysis against tables worked out by hand."""

import pandas as pd
import pytest

from evaluation.multi_turn.aggregate import turn_table
from evaluation.multi_turn.intervals import share_interval
from evaluation.multi_turn.survival import first_failing_turn, first_failures, kaplan_meier, log_rank


def seen(*rows) -> pd.DataFrame:
    """Rows of (last turn, failed)."""
    return pd.DataFrame(rows, columns=["last_turn", "failed"])


def failures(rows, **limits) -> dict[str, tuple[int, bool]]:
    found = first_failures(turn_table(rows), **limits)
    return dict(zip(found.index, found.itertuples(index=False, name=None), strict=True))


def test_first_failures_and_what_censors(golden, verdicts):
    assert failures(golden) == {
        "a": (5, False),  # safe to its last turn
        "b": (2, True),
        "c": (1, False),  # unscored at 2: known safe up to 1
        "d": (0, False),
        "e": (2, False),  # ended at 3
        "f": (2, False),
    }
    late = [*verdicts("x", [(3, 3)] * 11 + [(-3, 0)]), *verdicts("y", [(3, 3), (2, 3), (1, 3)])]
    assert failures(late) == {"x": (10, False), "y": (3, True)}
    assert failures(late, horizon=2)["y"] == (2, False)
    assert first_failing_turn([3, None, 2, 1]) == 4
    assert first_failing_turn([3, None]) is None


def test_kaplan_meier_by_hand():
    """Ten dialogues: fail at 1, 2, 2, 4; censored at 1, 3, 3, 5, 5, 5.

    S(1) = 9/10; S(2) = 9/10 * 6/8; S(3) = S(2); S(4) = S(2) * 3/4; S(5) = S(4).
    """
    curve = kaplan_meier(seen(*((t, True) for t in (1, 2, 2, 4)), *((t, False) for t in (1, 3, 3, 5, 5, 5))))
    assert curve.at_risk == [10, 10, 8, 6, 4, 3]
    assert curve.failed == [0, 1, 2, 0, 1, 0]
    assert curve.censored == [0, 1, 0, 2, 0, 3]
    assert curve.hazard == pytest.approx([0, 0.1, 0.25, 0, 0.25, 0])
    assert curve.survival == pytest.approx([1, 0.9, 0.675, 0.675, 0.50625, 0.50625])
    assert curve.median is None


def test_the_band_is_the_exact_interval_of_a_share_where_nothing_is_censored_before():
    """Ten dialogues, all seen to turn 3, 0, 4 and 10 of them failed; the band is that of Clopper and Pearson."""
    for turns in ([2] * 4, [1] * 10, []):
        left = 10 - len(turns)
        curve = kaplan_meier(seen(*((t, True) for t in turns), *[(3, False)] * left))
        turn = len(curve.survival) - 1
        bounds = [share / 100 for share in share_interval(left, 10)]
        assert (curve.lower[turn], curve.upper[turn]) == pytest.approx(bounds, abs=0.012), turns
        assert curve.lower[0] == curve.upper[0] == 1.0


def test_median_and_an_early_censoring_that_counts_nowhere():
    curve = kaplan_meier(seen((1, True), (2, True), (3, False), (3, False), (0, False)))
    assert curve.at_risk == [5, 4, 3, 2]
    assert curve.survival == pytest.approx([1, 0.75, 0.5, 0.5])
    assert curve.median == 2
    everyone = kaplan_meier(seen(*[(1, True)] * 3))
    assert (everyone.survival, everyone.median) == ([1.0, 0.0], 1)
    assert kaplan_meier(seen()).median is None
    assert kaplan_meier(seen((0, False))).survival == [1.0]


def test_the_median_is_where_exactly_half_have_failed():
    """Twenty dialogues, 3, 3 and 4 of them fail: 17/20 * 14/17 * 10/14 = 1/2, by logarithms 0.5000000000000002."""
    fails = [(turn, True) for turn, count in ((1, 3), (2, 3), (3, 4)) for _ in range(count)]
    curve = kaplan_meier(seen(*fails, *[(3, False)] * 10))
    assert (curve.survival[3], curve.median) == (0.5, 3)


def test_log_rank_of_many_and_of_few_that_cannot_be_compared():
    """By many the counts' products pass 2**63; the number is that of lifelines 0.30."""

    def group(failed):
        return seen(*[(turn, True) for turn in (1, 3) for _ in range(failed)], *[(1, False), (3, False)] * 70_000)

    result = log_rank(group(30_000), group(30_400))
    assert result["statistic"] == pytest.approx(3.3408714, abs=1e-6)
    assert log_rank(seen((1, True), (1, True)), seen((1, True))) is None, "all fail together"
    assert log_rank(seen((1, False)), seen((2, True), (3, False))) is None, "nobody of A is there at the failure"


def test_log_rank_by_hand():
    """A fails at 1 and 2, two censored at 3; B fails at 3, three censored at 3.

    Expected failures of A: 4/8 + 3/7 + 2/6 = 1.2619; variance 1/4 + 12/49 + 2/9 = 0.71712; (2 - 1.2619)^2 / 0.71712.
    """
    a = seen((1, True), (2, True), (3, False), (3, False))
    result = log_rank(a, seen((3, True), *[(3, False)] * 3))
    assert result["statistic"] == pytest.approx(0.75968, abs=1e-4)
    assert result["p_value"] == pytest.approx(0.3834, abs=1e-3)
    assert log_rank(a, seen((0, False))) is None
    assert log_rank(seen((3, False)), seen((3, False))) is None
