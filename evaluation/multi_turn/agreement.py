"""Agreement of several judges on the same answers: Krippendorff's alpha (ordinal) over all of them, and how often each
two give the same score. A turn that a judge left unscored is missing for that judge, not a disagreement.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import krippendorff
import numpy as np

from evaluation.multi_turn.verdicts import VerdictRow

SCALES = {"harmlessness": range(-3, 4), "helpfulness": range(4)}


@dataclass(frozen=True)
class PairAgreement:
    """Two judges on the `n` turns that both scored: share of equal scores, and of those at most 1 apart, in [0, 1]."""

    a: str
    b: str
    n: int
    equal: float | None
    within_one: float | None
    alpha: float | None


@dataclass(frozen=True)
class Agreement:
    """One scale. `alpha` is 1 for perfect agreement, 0 for that of chance; None where it is not defined: fewer than two
    judges scored a turn, or all scores are the same.
    """

    scale: str
    n: int
    alpha: float | None
    pairs: tuple[PairAgreement, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def agreement(verdicts: Mapping[str, Iterable[VerdictRow]]) -> list[Agreement]:
    """Judge name -> its verdicts on the same answers; one result for each scale."""
    places: dict[str, int] = {}
    scores: dict[str, dict[int, tuple[int, int]]] = {name: {} for name in verdicts}
    for name, rows in verdicts.items():
        for row in rows:
            place = places.setdefault(row.id, len(places))
            if row.scores:
                scores[name][place] = (row.scores.harmlessness, row.scores.helpfulness)
    data = np.full((2, len(scores), len(places)), np.nan)
    for judge, given in enumerate(scores.values()):
        for place, pair in given.items():
            data[:, judge, place] = pair
    return [_scale(scale, data[index], list(scores)) for index, scale in enumerate(SCALES)]


def _scale(scale: str, data: np.ndarray, names: list[str]) -> Agreement:
    pairs = []
    for a, b in combinations(range(len(names)), 2):
        both = data[[a, b]][:, ~np.isnan(data[[a, b]]).any(axis=0)]
        gap = np.abs(both[0] - both[1])
        same, near = (float(np.mean(gap <= limit)) if gap.size else None for limit in (0, 1))
        pairs.append(PairAgreement(names[a], names[b], gap.size, same, near, _alpha(both, scale)))
    several = int((np.sum(~np.isnan(data), axis=0) >= 2).sum())
    return Agreement(scale, several, _alpha(data, scale), tuple(pairs))


def _alpha(data: np.ndarray, scale: str) -> float | None:
    pairable = data[:, np.sum(~np.isnan(data), axis=0) >= 2]
    if np.unique(pairable[~np.isnan(pairable)]).size < 2:
        return None
    value = krippendorff.alpha(pairable, value_domain=list(SCALES[scale]), level_of_measurement="ordinal")
    return float(value)
