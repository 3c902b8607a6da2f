"""TCSR and return: values computed by hand, and properties that hold for all inputs."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from safer_steer_verl.utils.tcsr import TURN_RULES, TcsrConfig, tcsr, trajectory_return, turn_values, with_missing

SCORES = st.lists(st.floats(min_value=0, max_value=1), min_size=1, max_size=10)
ALPHA = st.floats(min_value=0, max_value=1)
RULES = ("paper", "raw", "released", "mean", "last", "linear", "soft_linear", "harmonic")
MEAN_RULES = [TcsrConfig(rule=rule, return_rule="mean") for rule in RULES]  # one number within the scores' range
ALL_RULES = [*MEAN_RULES, *(TcsrConfig(rule=rule) for rule in ("paper", "additive", "raw"))]


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


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        # scores .8 .2 .8
        ("paper", 0.8 + 0.41 + 0.48),  # Eq. 20: the sum
        ("additive", 1.8 + 0.8 + 0.41 + 0.48),
        ("raw", 1.8),
        ("released", 0.3 * 0.2 + 0.7 * 0.6),
        ("mean", 0.6),
        ("last", 0.8),
        ("linear", (0.8 + 2 * 0.2 + 3 * 0.8) / 6),
        ("soft_linear", (0.8 + 1.1 * 0.2 + 1.2 * 0.8) / 3.3),
        ("harmonic", 3 / (1 / 0.8 + 1 / 0.2 + 1 / 0.8)),
    ],
)
def test_golden_returns(rule, expected):
    config = TcsrConfig(rule=rule)
    assert trajectory_return([0.8, 0.2, 0.8], config) == pytest.approx(expected, abs=1e-12)
    assert bool(turn_values([0.8, 0.2, 0.8], config)) == (rule in TURN_RULES)


def test_the_mean_return_and_the_last_value():
    scores = [0.8, 0.2, 0.8]
    assert trajectory_return(scores, TcsrConfig(return_rule="mean")) == pytest.approx(1.69 / 3)
    assert trajectory_return(scores, TcsrConfig(rule="raw", return_rule="mean")) == pytest.approx(0.6)
    # the released code's number is Eq. 18's last value
    assert trajectory_return(scores, TcsrConfig(rule="released")) == pytest.approx(tcsr(scores, 0.3)[-1])


def test_the_harmonic_mean_of_a_zero_score_is_finite():
    assert trajectory_return([0.0, 1.0], TcsrConfig(rule="harmonic")) == pytest.approx(2 / (1 / 0.01 + 1))


@given(SCORES, ALPHA)
def test_one_value_a_turn_between_running_minimum_and_mean(scores, alpha):
    values = tcsr(scores, alpha)
    assert len(values) == len(scores)
    for turn, value in enumerate(values, start=1):
        seen = scores[:turn]
        assert min(seen) - 1e-9 <= value <= sum(seen) / turn + 1e-9


@given(SCORES, ALPHA, st.integers(0, 9), st.floats(0, 1))
def test_a_lower_turn_never_raises_any_later_value_and_leaves_earlier_ones(scores, alpha, where, lowered):
    where %= len(scores)
    worse = [min(score, lowered) if index == where else score for index, score in enumerate(scores)]
    old, new = tcsr(scores, alpha), tcsr(worse, alpha)
    assert new[:where] == old[:where]
    assert all(after <= before + 1e-9 for after, before in zip(new[where:], old[where:], strict=True))


@given(SCORES.flatmap(lambda scores: st.tuples(st.just(scores), st.permutations(scores))), ALPHA)
def test_permuted_turns_change_earlier_values_only_never_the_last(pair, alpha):
    """m_T and mean_T of Eq. 18 do not depend on the order; so neither does what is built on them alone."""
    scores, permuted = pair
    assert tcsr(permuted, alpha)[-1] == pytest.approx(tcsr(scores, alpha)[-1], abs=1e-9)
    for rule in ("released", "mean", "harmonic", "raw"):
        config = TcsrConfig(rule=rule, alpha=alpha)
        assert trajectory_return(permuted, config) == pytest.approx(trajectory_return(scores, config), abs=1e-9)


@given(SCORES, st.sampled_from(ALL_RULES), st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_a_dialogue_that_ends_early_never_gains_by_it(scores, config, rest):
    planned = len(scores) + len(rest)
    cut = trajectory_return(with_missing(scores, planned), config)
    assert cut <= trajectory_return([*scores, *rest], config) + 1e-9


def test_missing_turns_are_no_better_than_a_bad_one_of_another_reward():
    assert with_missing([0.5, -0.2], 4) == [0.5, -0.2, -0.2, -0.2]


@given(SCORES, st.sampled_from(MEAN_RULES))
def test_every_mean_like_return_lies_within_the_scores(scores, config):
    floor = 0.01 if config.rule == "harmonic" else 0.0
    value = trajectory_return(scores, config)
    assert min(scores) - 1e-9 <= value <= max(max(scores), floor) + 1e-9


@given(SCORES, st.sampled_from(MEAN_RULES), st.integers(0, 9), st.floats(0, 1))
def test_every_return_grows_with_every_score(scores, config, where, raised):
    where %= len(scores)
    better = [max(score, raised) if index == where else score for index, score in enumerate(scores)]
    assert trajectory_return(better, config) >= trajectory_return(scores, config) - 1e-9


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_score_that_is_no_number_is_an_error_not_a_value(bad):
    with pytest.raises(ValueError, match="turn 2"):
        tcsr([0.5, bad], 0.3)


def test_alpha_outside_the_unit_interval_is_refused():
    with pytest.raises(ValueError, match="alpha"):
        tcsr([0.5], 1.2)
    with pytest.raises(ValidationError):
        TcsrConfig(alpha=-0.1)


@pytest.mark.parametrize("rule", RULES)
def test_no_rule_takes_a_score_that_is_no_number(rule):
    with pytest.raises(ValueError, match="turn 1"):
        trajectory_return([math.nan, 0.5], TcsrConfig(rule=rule))
