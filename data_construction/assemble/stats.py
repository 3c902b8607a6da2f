"""`stats.json`: sizes and turns of the splits, red-team success rates, what other thresholds would keep."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from data_construction.bootstrap.keep import threshold_table
from data_construction.red_team.attack import FAILED
from safer_steer.dialogue import Dialogue


def split_stats(rows: Sequence[Dialogue]) -> dict[str, Any]:
    """Size, range and mean of the number of turns, and counts by kind, source and strategy."""
    turns = [len(row.turns) for row in rows]
    numbers: dict[str, Any] = {"size": len(rows)}
    if turns:
        numbers |= {"turns_min": min(turns), "turns_max": max(turns), "turns_mean": round(sum(turns) / len(turns), 2)}
    for name in ("kind", "source", "strategy"):
        numbers[name] = dict(sorted(Counter(str(getattr(row, name)) for row in rows if getattr(row, name)).items()))
    return numbers


def attack_stats(dialogues: Iterable[Dialogue], rejects: Iterable[dict]) -> dict[str, dict[str, dict[str, float]]]:
    """Tries and successes by strategy and by technique; an attack that ended without a verdict is not a try."""
    tries: dict[str, dict[str, list[int]]] = {
        "strategy": defaultdict(lambda: [0, 0]),
        "technique": defaultdict(lambda: [0, 0]),
    }
    outcomes = [(row.strategy, row.meta["technique"], 1) for row in dialogues if row.kind == "red_team"]
    outcomes += [(row["strategy"], row["technique"], 0) for row in rejects if row["reason"] == FAILED]
    for strategy, technique, success in outcomes:
        for name, value in (("strategy", strategy), ("technique", technique)):
            tries[name][value][0] += 1
            tries[name][value][1] += success
    return {
        name: {key: {"tries": n, "successes": k, "rate": round(k / n, 3)} for key, (n, k) in sorted(table.items())}
        for name, table in tries.items()
    }


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
