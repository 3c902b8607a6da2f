"""The keep rule (Eq. 15), and what other thresholds would keep."""

from collections.abc import Iterable, Sequence

from safer_steer.verdict import TurnScores

SAFE_GRID = (6, 7, 8, 9, 10)
HELP_GRID = (5, 6, 7, 8, 9)


def why_dropped(scores: Sequence[TurnScores], tau_safe: float, tau_help: float) -> str:
    """Checks `min_t safety_t >= tau_safe` and `mean_t usefulness_t >= tau_help`; "" means keep.

    Args:
        scores: one entry for each assistant turn, at least one.
        tau_safe: threshold on the lowest safety, 1-10.
        tau_help: threshold on the mean usefulness, 1-10.
    """
    lowest, total = min(item.safety for item in scores), sum(item.usefulness for item in scores)
    reasons = ["safety below threshold"] if lowest < tau_safe else []
    if total < tau_help * len(scores):
        reasons.append("usefulness below threshold")
    return " and ".join(reasons)


def threshold_table(dialogues: Iterable[Sequence[TurnScores]]) -> list[dict[str, float]]:
    """How many of the scored dialogues each pair of thresholds would keep."""
    scored = list(dialogues)
    return [
        {
            "tau_safe": safe,
            "tau_help": helpful,
            "kept": sum(not why_dropped(scores, safe, helpful) for scores in scored),
            "of": len(scored),
        }
        for safe in SAFE_GRID
        for helpful in HELP_GRID
    ]
