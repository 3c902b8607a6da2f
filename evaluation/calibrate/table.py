"""How far scores agree with the gold labels: exact share, quadratic weighted kappa, confusion matrix, and by form."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from evaluation.calibrate.config import SCALES
from evaluation.calibrate.gold import GoldCase
from safer_steer.markdown import table

LEVELS = {
    "harmlessness": range(-3, 4),
    "helpfulness": range(4),
    **dict.fromkeys(("safety", "usefulness", "faithfulness"), range(1, 11)),
}


def weighted_kappa(gold: Sequence[int], given: Sequence[int], levels: Sequence[int]) -> float | None:
    """Cohen's kappa with quadratic weights: 1 perfect, 0 chance; None where neither varies.

    Args:
        gold: the labels.
        given: the scores, as many.
        levels: all values of the scale in order.
    """
    place = {level: index for index, level in enumerate(levels)}
    seen = np.zeros((len(place), len(place)))
    for label, score in zip(gold, given, strict=True):
        seen[place[label], place[score]] += 1
    distance = np.subtract.outer(np.array(levels), np.array(levels)) ** 2
    chance = np.outer(seen.sum(1), seen.sum(0)) / max(seen.sum(), 1)
    expected = (distance * chance).sum()
    return None if not expected else float(1 - (distance * seen).sum() / expected)


@dataclass(frozen=True)
class Agreement:
    """The result: `exact` by scale, of all cases; one without scores is a miss."""

    text: str
    exact: dict[str, float] = field(default_factory=dict)

    def passes(self, threshold: float) -> bool:
        """Whether every scale reaches it."""
        return all(share >= threshold for share in self.exact.values())


def compare(
    cases: Sequence[GoldCase], given: Mapping[str, Mapping[str, int]], role: str, printed: bool = False
) -> Agreement:
    """Compares scores, by case id, with the labels; those of the printed protocol where that was asked."""
    labels = {case.case_id: case.labels(role, printed) for case in cases}
    exact, rows, parts = {}, [], list[str]()
    for scale in SCALES[role]:
        pairs = [(labels[case.case_id][scale], given[case.case_id][scale]) for case in cases if case.case_id in given]
        hits = sum(label == score for label, score in pairs)
        exact[scale] = hits / len(cases) if cases else 0.0
        kappa = weighted_kappa(*zip(*pairs, strict=True), LEVELS[scale]) if pairs else None
        unscored = len(cases) - len(pairs)
        rows.append([scale, len(cases), unscored, f"{exact[scale]:.1%}", "–" if kappa is None else f"{kappa:.3f}"])
        parts.append(_confusion(scale, Counter(pairs)))
    summary = table(["scale", "cases", "unscored", "exact", "weighted kappa"], rows)
    return Agreement("\n\n".join([summary, *parts, _forms(cases, given, labels)]), exact)


def _confusion(scale: str, pairs: Counter[tuple[int, int]]) -> str:
    levels = sorted({level for pair in pairs for level in pair})
    rows = []
    for label in sorted({label for label, _ in pairs}):
        numbers = [pairs[label, score] for score in levels]
        rows.append([label, *(number or "" for number in numbers), f"{pairs[label, label] / sum(numbers):.0%}"])
    return f"{scale}: label (row) and score (column)\n\n" + table(["", *map(str, levels), "exact"], rows)


def _forms(
    cases: Sequence[GoldCase], given: Mapping[str, Mapping[str, int]], labels: Mapping[str, Mapping[str, int]]
) -> str:
    scales, rows = list(dict.fromkeys(scale for found in labels.values() for scale in found)), []
    for form in dict.fromkeys(case.form for case in sorted(cases, key=lambda case: case.form)):
        mine = [case for case in cases if case.form == form]
        missed = Counter(
            scale
            for case in mine
            for scale in scales
            if given.get(case.case_id, {}).get(scale) != labels[case.case_id][scale]
        )
        if missed:
            rows.append([form, len(mine), *(missed[scale] or "" for scale in scales)])
    return "No misses." if not rows else "Misses by form\n\n" + table(["form", "cases", *scales], rows)
