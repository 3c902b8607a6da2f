"""Intervals over seeds and dialogues hold the true value, and are no wider than that needs: simulated."""

import numpy as np
import pytest

from reproduce.intervals import contrast, two_level

GROUPS, SIZE = 5, 52  # benchmarks, and dialogues of each
CHANGED = 0.3  # of paired dialogues: one model passes, the other does not
RUNS, RESAMPLES = 200, 300
GAP = (-100.0, 100.0)


def simulate(rng: np.random.Generator, seeds: int, spread: float) -> tuple[float, float]:
    """Interval of a paired gap whose true value is 0; seeds differ by `spread` points (standard deviation)."""
    numbers = []
    for shift in np.clip(rng.normal(0.0, spread, seeds), -29, 29) / 100:
        shares = [CHANGED / 2 - shift / 2, 1 - CHANGED, CHANGED / 2 + shift / 2]
        gaps = [rng.choice([-100.0, 0, 100], SIZE, p=shares) for _ in range(GROUPS)]
        numbers.append(contrast([(1 / GROUPS, values) for values in gaps], GAP))
    found = two_level(numbers, RESAMPLES, int(rng.integers(2**31)))
    return found.low, found.high


# Dialogues alone give a seed's number a spread of 3.4 points. One seed says nothing about other seeds.
@pytest.mark.parametrize(("seeds", "spread"), [(1, 0.0), (3, 0.0), (3, 3.0), (3, 8.0), (5, 0.0), (5, 3.0), (5, 8.0)])
def test_the_interval_holds_the_true_value(seeds, spread):
    rng = np.random.default_rng([seeds, int(spread)])
    low, high = np.transpose([simulate(rng, seeds, spread) for _ in range(RUNS)])
    assert np.mean((low <= 0) & (high >= 0)) > 0.88, "95 % asked for; 200 runs vary by 1.5, and few seeds are rough"
    if not spread:
        exact = 1.96 * 100 * (CHANGED / (seeds * GROUPS * SIZE)) ** 0.5
        assert exact < np.median(high - low) / 2 < 1.5 * exact, "more seeds pay, although their number is small"


def test_one_dialogue_more_is_one_for_all_groups_and_seeds():
    """All of 3 x 5 x 52 dialogues pass: the exact interval of 780 of 780."""
    every = contrast([(1 / GROUPS, [100.0] * SIZE)] * GROUPS, (0.0, 100.0))
    found = two_level([every] * 3)
    assert found.high == 100.0
    assert found.low == pytest.approx(100 * 0.025 ** (1 / 780), abs=0.1)
