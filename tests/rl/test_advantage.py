"""Group advantages: Eq. 20 without the standard deviation, and all ways a group can be incomplete (case 15)."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from safer_steer_verl.estimators import register, safer_steer_trajectory, safer_steer_turn
from safer_steer_verl.utils.advantage import ZERO, group_advantages, turn_advantages, turn_spans

NAN = math.nan


@pytest.mark.parametrize(
    ("returns", "masked", "expected"),
    [
        ([1.0, 3.0, 11.0], None, [-4.0, -2.0, 6.0]),
        ([0.4, 0.4, 0.4, NAN], None, [0.0, 0.0, 0.0, 0.0]),
        ([0.7], None, [0.0]),
        ([0.7, 0.1], [False, True], [0.0, 0.0]),
        ([0.2, 0.6, 9.9], [False, False, True], [-0.2, 0.2, 0.0]),
        ([0.2, 0.6, NAN], None, [-0.2, 0.2, 0.0]),
        ([NAN, NAN], None, [0.0, 0.0]),
        ([0.2, math.inf], None, [0.0, 0.0]),
    ],
)
def test_masked_and_lonely_trajectories(returns, masked, expected):
    assert group_advantages(returns, ["g"] * len(returns), masked) == pytest.approx(expected)


def test_division_by_the_standard_deviation_is_a_choice():
    assert group_advantages([0.0, 2.0], ["a", "a"], divide_by_std=True) == pytest.approx([-0.7071, 0.7071], abs=1e-4)
    assert group_advantages([1.0, 1.0], ["a", "a"], divide_by_std=True) == pytest.approx([0.0, 0.0])


@given(
    st.lists(st.tuples(st.floats(-10, 10) | st.just(NAN), st.integers(0, 3), st.booleans()), min_size=1, max_size=40)
)
def test_finite_and_zero_sum_in_every_group(rows):
    returns, groups, masked = (list(column) for column in zip(*rows, strict=True))
    advantages = group_advantages(returns, groups, masked)
    assert all(math.isfinite(value) for value in advantages)
    for group in set(groups):
        assert sum(a for a, g in zip(advantages, groups, strict=True) if g == group) == pytest.approx(0.0, abs=1e-9)
    for advantage, value, flag in zip(advantages, returns, masked, strict=True):
        if flag or not math.isfinite(value):
            assert advantage == 0.0


def test_estimator_puts_advantages_on_generated_tokens_only():
    mask = torch.tensor([[1, 0, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0]])
    rewards = torch.tensor([[0, 0, 0, 1.0], [0, 3.0, 0, 0], [0, 0, NAN, 0]])
    advantages, returns = safer_steer_trajectory(rewards, mask, index=["p", "p", "p"])
    expected = torch.tensor([[-1.0, 0, -1.0, 0], [1.0, 1.0, 0, 0], [0, 0, 0, 0]])
    assert torch.equal(advantages, expected)
    assert torch.equal(returns, expected)


def test_turn_advantages_are_rewards_to_go_against_the_group_at_that_turn():
    rewards = [[1.0, 0.0, 1.0], [1.0, 1.0], [0.0, 0.0]]  # to go: 2 1 1 | 2 1 | 0 0
    assert turn_advantages(rewards, ["a", "a", "a"]) == [
        pytest.approx([2 - 4 / 3, 1 - 2 / 3, 0.0]),  # nobody else has a third turn
        pytest.approx([2 - 4 / 3, 1 - 2 / 3]),
        pytest.approx([-4 / 3, -2 / 3]),
    ]


def test_turn_advantages_leave_masked_trajectories_out():
    rewards = [[1.0, NAN], [1.0, 1.0], [0.0, 0.0], [9.0]]
    got = turn_advantages(rewards, ["a", "a", "a", "a"], [False, False, False, True])
    assert got == [[0.0, 0.0], pytest.approx([1.0, 0.5]), pytest.approx([-1.0, -0.5]), [0.0]]


@given(
    st.lists(
        st.tuples(st.lists(st.floats(0, 1), min_size=1, max_size=4), st.integers(0, 2), st.booleans()),
        min_size=1,
        max_size=20,
    )
)
def test_turn_advantages_are_zero_sum_at_every_turn_of_a_group(rows):
    rewards, groups, masked = (list(column) for column in zip(*rows, strict=True))
    values = turn_advantages(rewards, groups, masked)
    for group in set(groups):
        for turn in range(4):
            at = [v[turn] for v, g in zip(values, groups, strict=True) if g == group and len(v) > turn]
            assert sum(at) == pytest.approx(0.0, abs=1e-9)
    assert all(value == 0.0 for v, flag in zip(values, masked, strict=True) if flag for value in v)


def test_turn_spans_of_a_row():
    mask = [1, 1, 0, 0, 1, 0, 0]
    assert turn_spans(mask, [0, 0.5, 0, 0, 0.25, 0, 0]) == [(0, 2, 0.5), (4, 5, 0.25)]
    # the second answer has no token: its reward stands on its end token
    assert turn_spans([1, 0, 0, 1], [0.5, 0, 0.1, 0.25]) == [(0, 1, 0.5), (2, 2, 0.1), (3, 4, 0.25)]


def test_a_turn_without_a_token_whose_value_is_0_keeps_its_place():
    mask = torch.tensor([[1, 0, 0, 1], [1, 0, 1, 0]])
    rewards = torch.tensor([[0.5, 0, ZERO, 0.25], [0.5, 0, 0.0, 0]])
    assert turn_spans(mask[0].tolist(), rewards[0].tolist()) == [(0, 1, 0.5), (2, 2, pytest.approx(0)), (3, 4, 0.25)]
    advantages, _ = safer_steer_turn(rewards, mask, index=["p", "p"])
    assert advantages[0, 3] == 0, "nobody else has a third turn"


def test_turn_estimator_on_tensors():
    mask = torch.tensor([[1, 1, 0, 1], [1, 0, 1, 0], [0, 0, 0, 0]])
    rewards = torch.tensor([[0, 1.0, 0, 1.0], [0.5, 0, 0.0, 0], [0, 0, 0, NAN]])
    advantages, returns = safer_steer_turn(rewards, mask, index=["p", "p", "p"])
    # to go: 2 1 | .5 0; means 1.25 .5
    expected = torch.tensor([[0.75, 0.75, 0, 0.5], [-0.75, 0, -0.5, 0], [0, 0, 0, 0]])
    assert torch.allclose(advantages, expected)
    assert torch.equal(returns, advantages)


@pytest.mark.integration
@pytest.mark.parametrize("name", ["safer_steer_trajectory", "safer_steer_turn"])
def test_verl_calls_the_registered_estimator(name):
    import numpy as np
    from verl.protocol import DataProto
    from verl.trainer.config import AlgoConfig
    from verl.trainer.ppo.v1.utils import compute_advantage_for_multi_trajectories

    register()
    batch = {
        "token_level_rewards": torch.tensor([[0.0, 1.0], [0.0, 2.0], [0.0, NAN]]),
        "response_mask": torch.tensor([[1, 1], [1, 0], [0, 0]]),
    }
    data = DataProto.from_dict(tensors=batch, non_tensors={"uid": np.array(["a", "a", "a"], dtype=object)})
    keys = ["a_0_0", "a_1_0", "a_2_0"]
    result = compute_advantage_for_multi_trajectories(
        data, keys, adv_estimator=name, config=AlgoConfig(norm_adv_by_std_in_grpo=False)
    )
    assert torch.equal(result.batch["advantages"], torch.tensor([[-0.5, -0.5], [0.5, 0.0], [0.0, 0.0]]))
