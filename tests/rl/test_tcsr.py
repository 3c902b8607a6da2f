"""TCSR, return and turn reward: values computed by hand, and properties that hold for all inputs."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from safer_steer.verdict import TurnScores
from safer_steer_verl.utils.tcsr import TcsrConfig, tcsr, trajectory_return
from safer_steer_verl.utils.turn_reward import RewardWeights, safety_reward, turn_reward

SCORES = st.lists(st.floats(min_value=0, max_value=1), min_size=1, max_size=10)
ALPHA = st.floats(min_value=0, max_value=1)


@pytest.mark.parametrize(
    ("scores", "alpha", "expected"),
    [
        # m = .8 .2 .2, mean = .8 .5 .6 -> .3 m + .7 mean
        ([0.8, 0.2, 0.8], 0.3, [0.8, 0.41, 0.48]),
        ([1.0, 1.0, 0.1], 0.3, [1.0, 1.0, 0.3 * 0.1 + 0.7 * 0.7]),
        ([0.4], 0.3, [0.4]),
        ([0.5, 0.25], 1.0, [0.5, 0.25]),
        ([0.5, 0.25], 0.0, [0.5, 0.375]),
        ([], 0.3, []),
    ],
)
def test_golden_values_of_eq_18(scores, alpha, expected):
    assert tcsr(scores, alpha) == pytest.approx(expected, abs=1e-12)


def test_golden_returns():
    values = tcsr([0.8, 0.2, 0.8], 0.3)
    assert trajectory_return(values) == pytest.approx(1.69)  # Eq. 19: the sum
    assert trajectory_return(values, "mean") == pytest.approx(1.69 / 3)
    # the released code's min_mean: 0.3 * min + 0.7 * mean over the dialogue
    assert trajectory_return(values, "final") == pytest.approx(0.3 * 0.2 + 0.7 * 0.6)


@given(SCORES, ALPHA)
def test_one_value_a_turn_between_running_minimum_and_mean(scores, alpha):
    values = tcsr(scores, alpha)
    assert len(values) == len(scores)
    for turn, value in enumerate(values, start=1):
        seen = scores[:turn]
        assert min(seen) - 1e-9 <= value <= sum(seen) / turn + 1e-9


@given(SCORES, ALPHA)
def test_a_value_depends_on_the_past_only(scores, alpha):
    whole = tcsr(scores, alpha)
    for turn in range(1, len(scores) + 1):
        assert tcsr(scores[:turn], alpha) == pytest.approx(whole[:turn])


@given(SCORES, ALPHA, st.integers(0, 9), st.floats(0, 1))
def test_a_better_turn_never_lowers_any_value(scores, alpha, where, raised):
    where %= len(scores)
    better = [max(score, raised) if index == where else score for index, score in enumerate(scores)]
    assert all(new >= old - 1e-9 for new, old in zip(tcsr(better, alpha), tcsr(scores, alpha), strict=True))


@given(st.floats(0, 1), st.integers(1, 10), ALPHA)
def test_equal_scores_stay_as_they_are(score, turns, alpha):
    assert tcsr([score] * turns, alpha) == pytest.approx([score] * turns)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_score_that_is_no_number_is_an_error_not_a_value(bad):
    with pytest.raises(ValueError, match="turn 2"):
        tcsr([0.5, bad], 0.3)


def test_alpha_outside_the_unit_interval_is_refused():
    with pytest.raises(ValueError, match="alpha"):
        tcsr([0.5], 1.2)
    with pytest.raises(ValidationError):
        TcsrConfig(alpha=-0.1)


def test_no_turn_has_no_return():
    with pytest.raises(ValueError, match="mask it"):
        trajectory_return([])


def test_turn_reward_of_eq_4():
    scores = TurnScores(safety=8, usefulness=5, faithfulness=10)
    assert turn_reward(scores, RewardWeights()) == pytest.approx(0.4 * 0.8 + 0.4 * 0.5 + 0.2 * 1.0)
    assert turn_reward(TurnScores(safety=10, usefulness=10, faithfulness=10), RewardWeights()) == pytest.approx(1.0)
    assert safety_reward(scores) == pytest.approx(0.8)


@given(st.integers(1, 10), st.integers(1, 10), st.integers(1, 10))
def test_turn_reward_is_in_the_unit_interval(safety, usefulness, faithfulness):
    scores = TurnScores(safety=safety, usefulness=usefulness, faithfulness=faithfulness)
    assert 0.1 - 1e-9 <= turn_reward(scores, RewardWeights()) <= 1.0 + 1e-9


def test_weights_must_sum_to_one():
    with pytest.raises(ValidationError, match="sum to 1"):
        RewardWeights(safety=0.5, usefulness=0.5, faithfulness=0.5)


@pytest.mark.parametrize("score", [0, 11, 99, "8", 7.5])
def test_scores_out_of_range_are_refused(score):
    with pytest.raises(ValidationError):
        TurnScores(safety=score, usefulness=5, faithfulness=5)
