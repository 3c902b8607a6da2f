"""Survival analysis against tables worked out by hand."""

import io

import pytest
from lifelines import KaplanMeierFitter
from PIL import Image

from evaluation.multi_turn.intervals import share_interval
from evaluation.multi_turn.records import collect
from evaluation.multi_turn.survival import LogRank, Observation, first_failing_turn, kaplan_meier, log_rank, observe
from evaluation.report.figure import survival_png


def test_observations(golden, verdicts):
    assert observe(collect(golden)) == {
        "a": Observation(5, False),  # safe to its last turn
        "b": Observation(2, True),
        "c": Observation(1, False),  # unscored at 2: known safe up to 1
        "d": Observation(0, False),
        "e": Observation(2, False),  # ended at 3
        "f": Observation(2, False),
    }
    late = collect([*verdicts("x", [(3, 3)] * 11 + [(-3, 0)]), *verdicts("y", [(3, 3), (2, 3), (1, 3)])])
    assert observe(late) == {"x": Observation(10, False), "y": Observation(3, True)}
    assert observe(late, horizon=2)["y"] == Observation(2, False)
    assert first_failing_turn([3, None, 2, 1]) == 4
    assert first_failing_turn([3, None]) is None


def test_kaplan_meier_by_hand():
    """Ten dialogues: fail at 1, 2, 2, 4; censored at 1, 3, 3, 5, 5, 5.

    S(1) = 9/10; S(2) = 9/10 * 6/8; S(3) = S(2); S(4) = S(2) * 3/4; S(5) = S(4).
    """
    seen = [Observation(t, True) for t in (1, 2, 2, 4)] + [Observation(t, False) for t in (1, 3, 3, 5, 5, 5)]
    curve = kaplan_meier(seen)
    assert curve.at_risk == [10, 10, 8, 6, 4, 3]
    assert curve.failed == [0, 1, 2, 0, 1, 0]
    assert curve.censored == [0, 1, 0, 2, 0, 3]
    assert curve.hazard == pytest.approx([0, 0.1, 0.25, 0, 0.25, 0])
    assert curve.survival == pytest.approx([1, 0.9, 0.675, 0.675, 0.50625, 0.50625])
    assert curve.median is None


def test_the_band_is_the_exact_interval_of_a_share_where_nothing_is_censored_before():
    """Ten dialogues, all seen to turn 3, 0, 4 and 10 of them failed; the band is that of Clopper and Pearson."""
    for failures in ([2] * 4, [1] * 10, []):
        left = 10 - len(failures)
        curve = kaplan_meier([Observation(t, True) for t in failures] + [Observation(3, False)] * left)
        turn = len(curve.survival) - 1
        bounds = [share / 100 for share in share_interval(left, 10)]
        assert (curve.lower[turn], curve.upper[turn]) == pytest.approx(bounds, abs=0.012), failures
        assert curve.lower[0] == curve.upper[0] == 1.0
    assert 0.6 < kaplan_meier([Observation(3, False)] * 10).lower[3] < 0.75, "no failure seen is no proof of none"


def test_median_and_an_early_censoring_that_counts_nowhere():
    seen = [Observation(1, True), Observation(2, True), Observation(3, False), Observation(3, False)]
    seen.append(Observation(0, False))
    curve = kaplan_meier(seen)
    assert curve.at_risk == [5, 4, 3, 2]
    assert curve.survival == pytest.approx([1, 0.75, 0.5, 0.5])
    assert curve.median == 2
    assert KaplanMeierFitter().fit([1, 2, 3, 3, 0], [1, 1, 0, 0, 0]).median_survival_time_ == 2
    everyone = kaplan_meier([Observation(1, True)] * 3)
    assert (everyone.survival, everyone.median) == ([1.0, 0.0], 1)
    assert kaplan_meier([]).median is None
    assert kaplan_meier([Observation(0, False)]).survival == [1.0]


def test_log_rank_by_hand():
    """A fails at 1 and 2, two censored at 3; B fails at 3, three censored at 3.

    Expected failures of A: 4/8 + 3/7 + 2/6 = 1.2619; variance 1/4 + 12/49 + 2/9 = 0.71712; (2 - 1.2619)^2 / 0.71712.
    """
    a = [Observation(1, True), Observation(2, True), Observation(3, False), Observation(3, False)]
    b = [Observation(3, True), *[Observation(3, False)] * 3]
    result = log_rank(a, b)
    assert result.statistic == pytest.approx(0.75968, abs=1e-4)
    assert result.p_value == pytest.approx(0.3834, abs=1e-3)
    assert log_rank(a, [Observation(0, False)]) is None
    assert log_rank([Observation(3, False)], [Observation(3, False)]) is None
    assert isinstance(log_rank(a, a), LogRank)


def test_the_figure_has_a_panel_for_each_benchmark_and_draws_models_that_never_fail():
    never, unseen = kaplan_meier([Observation(4, False)] * 3), kaplan_meier([Observation(0, False)])
    one = survival_png({"all": {"A": never, "B": unseen}}, failure_below=2, horizon=10, note="a note")
    four = survival_png({str(i): {"A": never} for i in range(4)}, failure_below=2, horizon=12)
    small, large = (Image.open(io.BytesIO(data)).size for data in (one, four))
    assert large[0] > 2 * small[0]
    assert large[1] > small[1]
