"""Group advantages: Eq. 20 without the standard deviation, and all ways a group can be incomplete (case 15)."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from safer_steer_verl.utils.advantage import group_advantages, safer_steer_grpo

NAN = math.nan


def test_return_minus_group_mean_without_division():
    assert group_advantages([1.0, 3.0, 10.0, 20.0], ["a", "a", "b", "b"]) == pytest.approx([-1.0, 1.0, -5.0, 5.0])


@pytest.mark.parametrize(
    ("returns", "masked", "expected"),
    [
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


def test_nan_stays_in_its_group():
    assert group_advantages([NAN, 1.0, 0.0, 1.0], ["a", "a", "b", "b"]) == pytest.approx([0.0, 0.0, -0.5, 0.5])


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
    advantages, returns = safer_steer_grpo(rewards, mask, index=["p", "p", "p"])
    expected = torch.tensor([[-1.0, 0, -1.0, 0], [1.0, 1.0, 0, 0], [0, 0, 0, 0]])
    assert torch.equal(advantages, expected)
    assert torch.equal(returns, expected)


@pytest.mark.integration
def test_verl_calls_the_registered_estimator():
    import numpy as np
    from verl.protocol import DataProto
    from verl.trainer.config import AlgoConfig
    from verl.trainer.ppo.v1.utils import compute_advantage_for_multi_trajectories

    from safer_steer_verl.utils import advantage

    advantage.register()
    batch = {
        "token_level_rewards": torch.tensor([[0.0, 1.0], [0.0, 2.0], [0.0, NAN]]),
        "response_mask": torch.tensor([[1, 1], [1, 0], [0, 0]]),
    }
    data = DataProto.from_dict(tensors=batch, non_tensors={"uid": np.array(["a", "a", "a"], dtype=object)})
    keys = ["a_0_0", "a_1_0", "a_2_0"]
    result = compute_advantage_for_multi_trajectories(
        data, keys, adv_estimator=advantage.ESTIMATOR, config=AlgoConfig(norm_adv_by_std_in_grpo=False)
    )
    assert torch.equal(result.batch["advantages"], torch.tensor([[-0.5, -0.5], [0.5, 0.0], [0.0, 0.0]]))
