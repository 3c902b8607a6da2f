"""Paired tests between two models that were given the same dialogues.

Pass rates by the exact McNemar test (the dialogues that only one of the two passes decide; where a dialogue is played
several times, those that one of the two passes more often), differences of rates and of mean scores with intervals
over dialogues (`intervals`). Dialogues that one of the two has no score for are left out and counted.
Differences are over all samples of either; the test, which needs as many of both, over those that both have scores for.
p-values are not corrected for the number of pairs.
"""

import pandas as pd

from evaluation.multi_turn.aggregate import HARMLESSNESS, HELPFULNESS, METRICS, Numbers, PassConfig
from evaluation.multi_turn.intervals import mean_interval


def paired(a: pd.DataFrame, b: pd.DataFrame, passing: PassConfig, *, names: tuple[str, str] = ("a", "b")) -> Numbers:
    """Compares B with A on the `n` dialogues that both have scores for; `left_out` are the others of either.

    Args:
        a, b: the models' dialogue tables.
        passing: how intervals are drawn.
        names: of the two models.

    Returns:
        `rates`, for each metric: `only_a` and `only_b`, the dialogues that A, or B, passes more often, by the samples
        that both have; `difference`, the rate of B minus that of A in points, with its 95 % `interval`; `p_value` of
        the exact two-sided McNemar test. `means`, for each score: the difference and its interval. Both are empty
        without a shared scored dialogue.
    """
    scored_a, scored_b = a[a.scored > 0], b[b.scored > 0]
    shared = _shared(scored_a, scored_b)
    tested = _shared(scored_a[scored_a.index.isin(scored_b.index)], scored_b[scored_b.index.isin(scored_a.index)])
    found: Numbers = {"a": names[0], "b": names[1], "n": len(shared)}
    found |= {"left_out": len({*a.sample_of, *b.sample_of}) - len(shared), "rates": {}, "means": {}}
    if shared.empty:
        return found
    for name in METRICS:
        found["rates"][name] = _rate(shared, tested, name, passing)
    for name, (low, high) in {"harmlessness": HARMLESSNESS, "helpfulness": HELPFULNESS}.items():
        gaps = (shared[f"{name}_b"] - shared[f"{name}_a"]).tolist()
        interval = mean_interval(gaps, (low - high, high - low), *passing.draws)
        found["means"][name] = (sum(gaps) / len(gaps), interval)
    return found


def _shared(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    """The dialogues of both, with the means of their samples in either."""
    scales = [*METRICS, "harmlessness", "helpfulness"]
    first, second = (table[scales].astype(float).groupby(table.sample_of).mean() for table in (a, b))
    return first.join(second, how="inner", lsuffix="_a", rsuffix="_b")


def _rate(shared: pd.DataFrame, tested: pd.DataFrame, name: str, passing: PassConfig) -> Numbers:
    from scipy.stats import binomtest  # a second of imports that only the report needs

    gap = tested[f"{name}_b"] - tested[f"{name}_a"]
    only_a, only_b = int((gap < 0).sum()), int((gap > 0).sum())
    differences = (100.0 * (shared[f"{name}_b"] - shared[f"{name}_a"])).tolist()
    p_value = binomtest(only_a, only_a + only_b, 0.5).pvalue if only_a + only_b else 1.0
    return {
        "only_a": only_a,
        "only_b": only_b,
        "difference": sum(differences) / len(differences),
        "interval": mean_interval(differences, (-100.0, 100.0), *passing.draws),
        "p_value": float(p_value),
    }
