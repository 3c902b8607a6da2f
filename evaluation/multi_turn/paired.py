"""Paired tests between two models that were given the same dialogues.

Pass rates by the exact McNemar test (the dialogues that only one of the two passes decide; where a dialogue is played
several times, those that one of the two passes more often), differences of rates and of mean scores with intervals over
dialogues (`intervals`). Dialogues that one of the two has no score for are left out and
counted. p-values are not corrected for the number of pairs.
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
        `rates`, for each metric: `only_a` and `only_b`, the dialogues that A, or B, passes more often; `difference`,
        the rate of B minus that of A in points, with its 95 % `interval`; `p_value` of the exact two-sided McNemar
        test. `means`, for each score: the difference and its interval. Both are empty without a shared scored dialogue.
    """
    rows = a[a.scored > 0].join(b[b.scored > 0], how="inner", lsuffix="_a", rsuffix="_b")
    scales = [f"{name}_{side}" for name in (*METRICS, "harmlessness", "helpfulness") for side in "ab"]
    shared = rows[scales].astype(float).groupby(rows.sample_of_a).mean()
    found: Numbers = {"a": names[0], "b": names[1], "n": len(shared)}
    found |= {"left_out": len({*a.sample_of, *b.sample_of}) - len(shared), "rates": {}, "means": {}}
    if shared.empty:
        return found
    for name in METRICS:
        found["rates"][name] = _rate(shared[f"{name}_a"], shared[f"{name}_b"], passing)
    for name, (low, high) in {"harmlessness": HARMLESSNESS, "helpfulness": HELPFULNESS}.items():
        gaps = (shared[f"{name}_b"] - shared[f"{name}_a"]).tolist()
        interval = mean_interval(gaps, (low - high, high - low), *passing.draws)
        found["means"][name] = (sum(gaps) / len(gaps), interval)
    return found


def _rate(a: pd.Series, b: pd.Series, passing: PassConfig) -> Numbers:
    from scipy.stats import binomtest  # a second of imports that only the report needs

    only_a, only_b = int((a > b).sum()), int((b > a).sum())
    differences = (100.0 * (b - a)).tolist()
    p_value = binomtest(only_a, only_a + only_b, 0.5).pvalue if only_a + only_b else 1.0
    return {
        "only_a": only_a,
        "only_b": only_b,
        "difference": sum(differences) / len(differences),
        "interval": mean_interval(differences, (-100.0, 100.0), *passing.draws),
        "p_value": float(p_value),
    }
