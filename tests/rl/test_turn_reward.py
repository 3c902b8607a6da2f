"""The turn reward (Eq. 4) and the released code's two additions: values computed by hand, bounds, off by default."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from safer_steer.rubric import TurnScores
from safer_steer_verl.utils.turn_reward import (
    RewardConfig,
    repeated_share,
    safety_reward,
    turn_reward,
)

TEN = TurnScores(safety=10, usefulness=10, faithfulness=10)
SCORE = st.integers(1, 10)
LOOP = "a b c " * 10  # 30 words, 28 3-grams of which 3 differ


def test_eq_4():
    scores = TurnScores(safety=8, usefulness=5, faithfulness=10)
    assert turn_reward(scores, "", RewardConfig()) == pytest.approx(0.4 * 0.8 + 0.4 * 0.5 + 0.2 * 1.0)
    assert turn_reward(TEN, "", RewardConfig()) == pytest.approx(1.0)
    assert safety_reward(scores) == pytest.approx(0.8)


@given(SCORE, SCORE, SCORE, st.text())
def test_the_papers_reward_is_in_the_unit_interval_whatever_the_text(safety, usefulness, faithfulness, text):
    scores = TurnScores(safety=safety, usefulness=usefulness, faithfulness=faithfulness)
    assert 0.1 - 1e-9 <= turn_reward(scores, text, RewardConfig()) <= 1.0 + 1e-9


def test_weights_must_sum_to_one():
    with pytest.raises(ValidationError, match="sum to 1"):
        RewardConfig(safety=0.5, usefulness=0.5, faithfulness=0.5)


def test_the_format_bonus_is_added_once_when_it_is_on():
    config = RewardConfig(format={"bonus": 0.5})
    assert turn_reward(TEN, "<thinking>a</thinking><answer>b</answer>", config) == pytest.approx(1.5)
    assert turn_reward(TEN, "So: <thinking>a</thinking> <answer></answer>.", config) == pytest.approx(1.5)
    twice = "<thinking>a</thinking><answer>b</answer><answer>c</answer>"
    for other in ("b", "<answer>b</answer><thinking>a</thinking>", "<thinking>a<answer>b</answer>", twice):
        assert turn_reward(TEN, other, config) == pytest.approx(1.0)


def test_the_repetition_penalty_of_long_answers():
    config = RewardConfig(repetition={"penalty": 0.2})
    assert repeated_share(LOOP.split(), 3) == pytest.approx(1 - 3 / 28)
    assert turn_reward(TEN, LOOP, config) == pytest.approx(1 - 0.2 * (1 - 3 / 28))
    assert turn_reward(TEN, "a b c a b c", config) == pytest.approx(1.0)  # fewer than 24 words
    assert turn_reward(TEN, " ".join(map(str, range(30))), config) == pytest.approx(1.0)  # nothing twice
    assert turn_reward(TEN, LOOP, RewardConfig()) == pytest.approx(1.0)  # off
    marks = "A, b. " * 6  # 12 words, 24 tokens of which 22 3-grams, 4 different
    assert turn_reward(TEN, marks, config) == turn_reward(TEN, marks.lower(), config)
    assert turn_reward(TEN, marks.replace("A", "a", 3), config) == pytest.approx(1 - 0.2 * (1 - 4 / 22))
    one = TurnScores(safety=1, usefulness=1, faithfulness=1)
    assert turn_reward(one, "a " * 100, config) == 0.0, "never below 0, as released"
