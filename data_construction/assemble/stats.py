"""The assembly's own part of `stats.json`: what the keep rule and other thresholds would keep, rejects by reason."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from data_construction.bootstrap.keep import threshold_table
from safer_steer.dialogue import Dialogue


def keep_stats(bootstrapped: Sequence[Dialogue]) -> dict[str, Any]:
    """How many scored dialogues were kept, why the others were not, and the table of thresholds."""
    reasons = Counter(row.meta["reason"] for row in bootstrapped if not row.meta["keep"])
    return {
        "scored": len(bootstrapped),
        "kept": sum(row.meta["keep"] for row in bootstrapped),
        "dropped": dict(reasons.most_common()),
        "thresholds": threshold_table([[turn.scores for turn in row.turns] for row in bootstrapped]),
    }


def reject_stats(rejects: Iterable[dict]) -> dict[str, int]:
    """Rejects by reason."""
    return dict(Counter(row["reason"] for row in rejects).most_common())
