"""95 % intervals over seeds and dialogues: a two-level bootstrap of numbers that are made of dialogues.

Level one draws seeds with replacement (a seed is one whole training of everything), level two dialogues with
replacement within each benchmark of each drawn seed. A number is the mean over seeds of a contrast: a weighted sum of
means of groups of dialogues, such as the mean of five benchmarks, or that of one model minus that of another. Where two
models played the same dialogues the difference is taken dialogue by dialogue first (paired), so that what is hard for
both cancels out. With few seeds such intervals are too narrow in their part between seeds (the variance of three drawn
from three is two thirds of the true one); with one seed they say nothing about other seeds.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 4000
SEED = 0
# Draws of one seed's number: generator, how many -> array (how many,).
Draw = Callable[[np.random.Generator, int], np.ndarray]


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval, and how many seeds and dialogues are behind it."""

    value: float
    low: float
    high: float
    seeds: int
    dialogues: int

    def to_dict(self) -> dict[str, float | int | list[float]]:
        """Plain data for JSON, rounded."""
        return {
            "value": round(self.value, 3),
            "interval": [round(self.low, 3), round(self.high, 3)],
            "seeds": self.seeds,
            "dialogues": self.dialogues,
        }


@dataclass(frozen=True)
class SeedNumber:
    """One seed's number: its value, how to draw it anew, and the dialogues it is made of."""

    value: float
    draw: Draw
    dialogues: int


def contrast(groups: Sequence[tuple[float, Sequence[float]]]) -> SeedNumber:
    """The sum of weight times mean over groups of dialogue values; each group is drawn anew by itself."""
    arrays = [(weight, np.asarray(values, dtype=float)) for weight, values in groups]
    # How often each distinct value comes up in n draws is one multinomial draw: the same as drawing rows, and faster.
    distinct = [(weight, *np.unique(values, return_counts=True)) for weight, values in arrays]

    def draw(rng: np.random.Generator, count: int) -> np.ndarray:
        total = np.zeros(count)
        for weight, values, counts in distinct:
            n = counts.sum()
            total += weight * (rng.multinomial(n, counts / n, size=count) @ values) / n
        return total

    value = sum(weight * float(values.mean()) for weight, values in arrays)
    return SeedNumber(value, draw, sum(len(values) for _, values in arrays))


def ratio(pairs: Sequence[tuple[float, float]]) -> SeedNumber:
    """Sum of the first over sum of the second, in percent, such as turns of a kind over all turns; one pair a
    dialogue.
    """
    values = np.asarray(pairs, dtype=float)
    distinct, counts = np.unique(values, axis=0, return_counts=True)

    def draw(rng: np.random.Generator, count: int) -> np.ndarray:
        n = counts.sum()
        sums = rng.multinomial(n, counts / n, size=count) @ distinct
        return 100.0 * sums[:, 0] / np.maximum(sums[:, 1], 1e-9)

    top, bottom = values.sum(axis=0)
    return SeedNumber(100.0 * top / bottom, draw, len(values))


def survived(rows: Sequence[tuple[int, bool]], horizon: int) -> np.ndarray:
    """Kaplan-Meier S(0..horizon) of (last turn, failed) rows; see `survival_of_counts`."""
    return survival_of_counts(np.ones((1, len(rows))), rows, horizon)[0]


def survival_of_counts(counts: np.ndarray, rows: Sequence[tuple[int, bool]], horizon: int) -> np.ndarray:
    """Kaplan-Meier curves of many draws at once.

    Args:
        counts: (draws, rows): how often each row is in a draw.
        rows: (turn of the first failure, True), or (last turn known to be without one, False).
        horizon: the last turn.

    Returns:
        (draws, horizon + 1): S(t) in [0, 1]; where nobody is at risk any more it stays as it was.
    """
    turns, failed = np.array([turn for turn, _ in rows]), np.array([failed for _, failed in rows])
    curves = np.ones((len(counts), horizon + 1))
    for turn in range(1, horizon + 1):
        at_risk = counts[:, turns >= turn].sum(axis=1)
        gone = counts[:, (turns == turn) & failed].sum(axis=1)
        curves[:, turn] = curves[:, turn - 1] * (1 - gone / np.maximum(at_risk, 1))
    return curves


def restricted_mean_difference(
    better: Sequence[tuple[int, bool]], worse: Sequence[tuple[int, bool]], horizon: int
) -> SeedNumber:
    """Difference of restricted mean survival: turns without a failure out of `horizon`, of one model minus another.

    Row i of both is the same dialogue, so both are drawn together.
    """

    def of(counts: np.ndarray) -> np.ndarray:
        gap = survival_of_counts(counts, better, horizon) - survival_of_counts(counts, worse, horizon)
        return gap[:, 1:].sum(axis=1)

    times = Counter(zip(better, worse, strict=True))
    better, worse = zip(*times, strict=True)
    counts = np.array(list(times.values()))
    n = counts.sum()

    def draw(rng: np.random.Generator, count: int) -> np.ndarray:
        return of(rng.multinomial(n, counts / n, size=count))

    return SeedNumber(float(of(counts[None])[0]), draw, int(n))


def two_level(seeds: Sequence[SeedNumber], resamples: int = RESAMPLES, seed: int = SEED) -> Estimate:
    """The mean over seeds and its percentile interval.

    Raises:
        ValueError: there is no seed.
    """
    if not seeds:
        raise ValueError("an estimate needs at least one seed")
    rng, count = np.random.default_rng(seed), len(seeds)
    chosen = rng.integers(count, size=(count, resamples))
    total = np.zeros(resamples)
    for slot in range(count):
        # A seed that is drawn twice gets new dialogues the second time.
        drawn = np.stack([number.draw(rng, resamples) for number in seeds])
        total += drawn[chosen[slot], np.arange(resamples)]
    low, high = np.percentile(total / count, (2.5, 97.5))
    value = sum(number.value for number in seeds) / count
    return Estimate(value, float(low), float(high), count, sum(number.dialogues for number in seeds))
