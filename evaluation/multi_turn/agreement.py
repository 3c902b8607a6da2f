"""Agreement of several judges on the same answers: Krippendorff's alpha (ordinal) over all of them, and how often each
two give the same score. A turn that a judge left unscored is missing for that judge, not a disagreement.
"""

from collections.abc import Mapping
from itertools import combinations

import krippendorff
import pandas as pd

from evaluation.multi_turn.aggregate import Numbers

SCALES = {"harmlessness": range(-3, 4), "helpfulness": range(4)}


def agreement(turns: Mapping[str, pd.DataFrame]) -> list[Numbers]:
    """For each scale how far the judges agree.

    Args:
        turns: judge -> the turn table of its verdicts on the same answers.

    Returns:
        For each scale `n`, the turns that at least two judges scored, and `alpha`: 1 for perfect agreement, 0 for that
        of chance; None where it is not defined: there is no such turn, or all scores are the same. `pairs` has the same
        for every two judges, `a` and `b`, with the shares of `equal` scores and of those `within_one`, in [0, 1].
    """
    by_turn = {judge: table.set_index(["dialogue", "turn"]) for judge, table in turns.items()}
    found = []
    for scale in SCALES:
        scores = pd.concat({judge: table[scale] for judge, table in by_turn.items()}, axis=1, sort=False)
        pairs = [_pair(scores[list(pair)].dropna(), scale) for pair in combinations(scores.columns, 2)]
        several = int((scores.count(axis=1) >= 2).sum())
        found.append({"scale": scale, "n": several, "alpha": _alpha(scores, scale), "pairs": pairs})
    return found


def _pair(both: pd.DataFrame, scale: str) -> Numbers:
    a, b = both.columns
    gap = (both[a] - both[b]).abs()
    same, near = (float((gap <= limit).mean()) if len(gap) else None for limit in (0, 1))
    return {"a": a, "b": b, "n": len(gap), "equal": same, "within_one": near, "alpha": _alpha(both, scale)}


def _alpha(scores: pd.DataFrame, scale: str) -> float | None:
    pairable = scores[scores.count(axis=1) >= 2].to_numpy().T
    if len(set(pairable[pairable == pairable])) < 2:
        return None
    return float(krippendorff.alpha(pairable, value_domain=list(SCALES[scale]), level_of_measurement="ordinal"))
