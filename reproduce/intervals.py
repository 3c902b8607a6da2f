"""95 % intervals over seeds and dialogues, of the mean over seeds of numbers that are made of dialogues.

A number is a contrast: a weighted sum of means of groups of dialogues, such as the mean of five benchmarks, or that of
one model minus that of another. Where two models played the same dialogues the difference is taken dialogue by dialogue
first (paired), so that what is hard for both cancels out.

Two things make the mean vary. Dialogues: those of each benchmark of each seed are weighed as
`evaluation.multi_turn.intervals` does, with one more dialogue at the end of the scale, which all groups share, so that
there is width also where all dialogues are alike. Seeds (a seed is one whole training of everything): their numbers
vary by their dialogues anyway; what they vary beyond that is estimated as in a random-effects meta-analysis (the
variance of the numbers minus the mean variance that dialogues give them, at least 0) and drawn from Student's t with
n - 1 degrees of freedom. With few seeds this is rough, and one seed says nothing about other seeds. Simulated coverage:
`tests/reproduce/test_intervals.py`.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 4000
SEED = 0
# Draws of one seed's number: generator, how many, and how many dialogues more, such as a third of one
# -> array (2, how many), of the lower and of the upper bound.
Draw = Callable[[np.random.Generator, int, float], np.ndarray]
Bounds = tuple[float, float]


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval, and how many seeds and dialogues are behind it.

    `p` is two-sided, of the number being 0: one minus the level of the widest interval that leaves 0 out.
    """

    value: float
    low: float
    high: float
    p: float
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
    """One seed's number: its value, how to draw it again, and the dialogues it is made of."""

    value: float
    draw: Draw
    dialogues: int


def contrast(groups: Sequence[tuple[float, Sequence[float]]], bounds: Bounds) -> SeedNumber:
    """The sum of weight times mean over groups of dialogue values within `bounds`; each group is drawn by itself."""
    arrays = [(weight, np.asarray(values, dtype=float)) for weight, values in groups]
    distinct = [(weight, *np.unique(values, return_counts=True)) for weight, values in arrays]

    def draw(rng: np.random.Generator, count: int, more: float) -> np.ndarray:
        total = np.zeros((2, count))
        for weight, values, counts in distinct:
            weights, extra = _weights(rng, counts, count, more / len(distinct))
            ends = np.array(bounds if weight > 0 else bounds[::-1])[:, None]
            total += weight * (weights @ values + extra * ends) / (weights.sum(axis=1) + extra)
        return total

    value = sum(weight * float(values.mean()) for weight, values in arrays)
    return SeedNumber(value, draw, sum(len(values) for _, values in arrays))


def ratio(pairs: Sequence[tuple[float, float]]) -> SeedNumber:
    """Sum of the first over sum of the second, in percent, such as turns of a kind over all turns; one pair per
    dialogue, 0 <= first <= second.
    """
    values = np.asarray(pairs, dtype=float)
    distinct, counts = np.unique(values, axis=0, return_counts=True)

    def draw(rng: np.random.Generator, count: int, more: float) -> np.ndarray:
        weights, extra = _weights(rng, counts, count, more)
        first, second = (weights @ distinct).T
        longest = extra * distinct[:, 1].max()
        return 100.0 * np.stack([first, first + longest]) / (second + longest)

    top, bottom = values.sum(axis=0)
    return SeedNumber(100.0 * top / bottom, draw, len(values))


def survived(rows: Sequence[tuple[int, bool]], horizon: int) -> np.ndarray:
    """Kaplan-Meier S(0..horizon) of (last turn, failed) rows; see `survival_of_counts`."""
    return survival_of_counts(np.ones((1, len(rows))), rows, horizon)[0]


def survival_of_counts(counts: np.ndarray, rows: Sequence[tuple[int, bool]], horizon: int) -> np.ndarray:
    """Kaplan-Meier curves of many draws at once.

    Args:
        counts: (draws, rows): how often each row is in a draw, or its weight.
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
        hazard = np.divide(gone, at_risk, out=np.zeros(len(counts)), where=at_risk > 0)
        curves[:, turn] = curves[:, turn - 1] * (1 - hazard)
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
    n, counts = len(better), np.array([*times.values(), 0, 0], dtype=float)
    # The one dialogue more: failed at once by the one model and never by the other, and the other way round.
    never, at_once = (horizon, False), (1, True)
    better, worse = zip(*times, (at_once, never), (never, at_once), strict=True)

    def draw(rng: np.random.Generator, count: int, more: float) -> np.ndarray:
        weights, extra = _weights(rng, counts[:-2], count, more)
        nothing = np.zeros(count)
        return np.stack([of(np.column_stack([weights, *ends])) for ends in ((extra, nothing), (nothing, extra))])

    return SeedNumber(float(of(counts[None])[0]), draw, n)


def _weights(rng: np.random.Generator, counts: np.ndarray, draws: int, more: float) -> tuple[np.ndarray, np.ndarray]:
    """Weights of distinct dialogues (draws, distinct), before division by their sum, and of `more` of one (draws,)."""
    return rng.standard_gamma(counts.astype(float), size=(draws, len(counts))), rng.standard_gamma(more, draws)


def two_level(seeds: Sequence[SeedNumber], resamples: int = RESAMPLES, seed: int = SEED) -> Estimate:
    """The mean over seeds and its percentile interval.

    Raises:
        ValueError: there is no seed.
    """
    if not seeds:
        raise ValueError("an estimate needs at least one seed")
    rng, count = np.random.default_rng(seed), len(seeds)
    values = np.array([number.value for number in seeds])
    value = float(values.mean())
    drawn = np.stack([number.draw(rng, resamples, 1 / count) for number in seeds])
    between = np.zeros(resamples)
    if count > 1:
        by_dialogues = float(drawn.mean(axis=1).var(axis=1).mean())
        beyond_them = max(0.0, float(values.var(ddof=1)) - by_dialogues)
        between = rng.standard_t(count - 1, resamples) * (beyond_them / count) ** 0.5
    low, high = drawn.mean(axis=0) + between
    beyond = int(min(np.count_nonzero(low <= 0), np.count_nonzero(high >= 0)))
    return Estimate(
        value,
        float(np.quantile(low, 0.025)),
        float(np.quantile(high, 0.975)),
        min(1.0, 2 * (1 + beyond) / (1 + resamples)),  # never 0: the draws cannot say less than their number allows
        count,
        sum(number.dialogues for number in seeds),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrects p values for being several (Holm, 1979): the chance of one false finding among all stays below 5 %."""
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected
