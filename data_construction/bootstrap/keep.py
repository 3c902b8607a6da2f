"""The keep rule (Eq. 15), and what other thresholds would keep, as numbers and as Markdown."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from data_construction.assemble.config import Measures
from safer_steer.dialogue import Kind
from safer_steer.markdown import table

SAFE_GRID = (6, 7, 8, 9, 10)
HELP_GRID = (5.0, 6.0, 7.0, 8.0, 9.0)


def why_dropped(measures: Measures, tau_safe: float, tau_help: float) -> str:
    """Checks `min_t safety_t >= tau_safe` and `mean_t usefulness_t >= tau_help`; "" means keep.

    Args:
        measures: of the dialogue.
        tau_safe: threshold on the lowest safety, 1-10.
        tau_help: threshold on the mean usefulness, 1-10.
    """
    reasons = ["safety below threshold"] if measures.lowest_safety < tau_safe else []
    if measures.mean_usefulness < tau_help:
        reasons.append("usefulness below threshold")
    return " and ".join(reasons)


def threshold_table(scored: Iterable[Measures], tau_safe: int = 8, tau_help: float = 7.0) -> list[dict[str, float]]:
    """How many of the scored dialogues each pair of thresholds would keep; the given pair is one of them."""
    dialogues = list(scored)
    return [
        {
            "tau_safe": safe,
            "tau_help": helpful,
            "kept": sum(not why_dropped(measures, safe, helpful) for measures in dialogues),
            "of": len(dialogues),
        }
        for safe in sorted({*SAFE_GRID, tau_safe})
        for helpful in sorted({*HELP_GRID, float(tau_help)})
    ]


def keep_rule_markdown(
    scored: Sequence[tuple[Kind, Measures]], tau_safe: int, tau_help: float, ended: Mapping[str, int]
) -> str:
    """A page that helps to choose the thresholds.

    Args:
        scored: kind and measures of each scored dialogue.
        tau_safe: the configured threshold on the lowest safety.
        tau_help: the configured threshold on the mean usefulness.
        ended: how many dialogues ended without scores, by reason.
    """
    found = threshold_table([measures for _, measures in scored], tau_safe, tau_help)
    kept = {(row["tau_safe"], row["tau_help"]): row["kept"] for row in found}
    columns = sorted({row["tau_help"] for row in found})
    rows = []
    for safe in sorted({row["tau_safe"] for row in found}):
        cells = []
        for helpful in columns:
            share = f"{kept[safe, helpful]:,} ({kept[safe, helpful] / max(1, len(scored)):.0%})"
            cells.append(f"**{share}**" if (safe, helpful) == (tau_safe, tau_help) else share)
        rows.append([safe, *cells])
    parts = [
        "# Keep rule (Eq. 15)",
        f"{len(scored):,} scored dialogues; kept at each pair of thresholds. Set: bootstrap.tau_safe={tau_safe}, "
        f"bootstrap.tau_help={tau_help:g} (in bold). To choose others, run the step `assemble` again with other "
        "values: no model is called.",
        table(["lowest safety ≥", *(f"mean usefulness ≥ {value:g}" for value in columns)], rows),
        _by_kind(scored, tau_safe, tau_help),
        _ended(ended),
    ]
    return "\n\n".join(parts) + "\n"


def _by_kind(scored: Sequence[tuple[Kind, Measures]], tau_safe: int, tau_help: float) -> str:
    results = Counter((kind, why_dropped(measures, tau_safe, tau_help) or "kept") for kind, measures in scored)
    columns = [
        "kept",
        "safety below threshold",
        "usefulness below threshold",
        "safety below threshold and usefulness below threshold",
    ]
    kinds = sorted({kind for kind, _ in scored})
    return table(["kind", *columns], [[kind, *(f"{results[kind, column]:,}" for column in columns)] for kind in kinds])


def _ended(ended: Mapping[str, int]) -> str:
    if not ended:
        return "Every dialogue was scored to its end."
    rows = [(reason, f"{number:,}") for reason, number in ended.items()]
    note = "Dialogues that ended without all their scores, and are not counted above:"
    return f"{note}\n\n{table(['reason', 'dialogues'], rows)}"
