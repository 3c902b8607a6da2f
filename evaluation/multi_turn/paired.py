"""Paired tests between two models that were given the same dialogues.

records of A, records of B -> `paired` -> `PairedResult`: pass rates by the exact McNemar test (the dialogues that only
one of the two passes decide), differences of rates and of mean scores with intervals over dialogues (`intervals`).
Dialogues that one of the two has no score for are left out and counted. p-values are not corrected for the number of
pairs.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from evaluation.multi_turn.aggregate import HARMLESSNESS, HELPFULNESS, METRICS, PassRule
from evaluation.multi_turn.intervals import Interval, mean_interval
from evaluation.multi_turn.records import DialogueRecord


@dataclass(frozen=True)
class PairedRate:
    """One pass rate of two models on shared dialogues.

    Attributes:
        only_a, only_b: dialogues that only A, or only B, passes.
        difference: rate of B minus rate of A, in points; `interval` its 95 % interval.
        p_value: exact two-sided McNemar test.
    """

    only_a: int
    only_b: int
    difference: float
    interval: Interval
    p_value: float


@dataclass(frozen=True)
class PairedResult:
    """Two models on the `n` dialogues that both have scores for; `left_out` are the others of either."""

    a: str
    b: str
    n: int
    left_out: int
    rates: dict[str, PairedRate]
    means: dict[str, tuple[float, Interval]]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def paired(
    a: Mapping[str, DialogueRecord],
    b: Mapping[str, DialogueRecord],
    rule: PassRule,
    *,
    names: tuple[str, str] = ("a", "b"),
) -> PairedResult:
    """Compares B with A; without a shared scored dialogue there are no rates and no means."""
    shared = sorted(key for key in a.keys() & b.keys() if rule.passes(a[key]) and rule.passes(b[key]))
    left_out = len(a.keys() | b.keys()) - len(shared)
    if not shared:
        return PairedResult(*names, 0, left_out, {}, {})
    outcomes = [(_outcomes(a[key], rule), _outcomes(b[key], rule)) for key in shared]
    rates = {name: _rate([(x[name], y[name]) for x, y in outcomes], rule) for name in METRICS}
    means = {}
    for index, (name, scale) in enumerate({"harmlessness": HARMLESSNESS, "helpfulness": HELPFULNESS}.items()):
        width = scale[1] - scale[0]
        gaps = [_mean(b[key], index) - _mean(a[key], index) for key in shared]
        means[name] = (sum(gaps) / len(gaps), mean_interval(gaps, (-width, width), rule.resamples, rule.seed))
    return PairedResult(*names, len(shared), left_out, rates, means)


def _outcomes(record: DialogueRecord, rule: PassRule) -> dict[str, bool]:
    passed = rule.passes(record)
    assert passed is not None, "only dialogues with a scored turn are compared"
    safe, helpful = passed
    return {"safe": safe, "help": helpful, "joint": safe and helpful}


def _mean(record: DialogueRecord, index: int) -> float:
    totals = record.totals()
    return totals[index] / totals[2]


def _rate(pairs: list[tuple[bool, bool]], rule: PassRule) -> PairedRate:
    from scipy.stats import binomtest  # a second of imports that only the report needs

    only_a = sum(x and not y for x, y in pairs)
    only_b = sum(y and not x for x, y in pairs)
    differences = [100.0 * (y - x) for x, y in pairs]
    p_value = binomtest(only_a, only_a + only_b, 0.5).pvalue if only_a + only_b else 1.0
    return PairedRate(
        only_a,
        only_b,
        sum(differences) / len(differences),
        mean_interval(differences, (-100.0, 100.0), rule.resamples, rule.seed),
        float(p_value),
    )
