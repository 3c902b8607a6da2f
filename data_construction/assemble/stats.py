"""`stats.json`: sizes and turns of the splits beside the paper's, red-team success rates, and what fell out and why."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from data_construction import stage_two
from data_construction.assemble.facts import RowFacts
from data_construction.assemble.history import HistoryRisk, risk_table
from data_construction.assemble.select import Pools, Selection
from data_construction.bootstrap.keep import Quality, threshold_table, why_dropped
from data_construction.config import Bootstrap, DataConfig
from data_construction.red_team.attack import FAILED
from safer_steer.store import read_jsonl

# Table 1: dialogues and mean number of turns; all of 2-10 turns.
PAPER = {
    "sft": {"size": 12934, "turns_mean": 6.35, "turns_min": 2, "turns_max": 10},
    "rl": {"size": 2000, "turns_mean": 8.33, "turns_min": 2, "turns_max": 10},
    "bench": {"size": 3227, "turns_mean": 8.55, "turns_min": 2, "turns_max": 10},
}


def all_stats(
    config: DataConfig,
    pools: Pools,
    dialogues: Sequence[RowFacts],
    bootstrapped: Sequence[RowFacts],
    risks: Mapping[str, HistoryRisk],
    chosen: Mapping[str, Selection],
) -> dict[str, Any]:
    """Everything that `stats.json` holds.

    Args:
        config: the run's config.
        pools: which row may go where.
        dialogues: Stage I's rows.
        bootstrapped: Stage II's scored rows; none when SFT is not made of them.
        risks: the judgements of step `history`.
        chosen: the splits.
    """
    folder = config.folder
    rejects = folder / "rejects.jsonl"
    ended = folder / stage_two.REJECTS
    return {
        "splits": {name: split_stats(item.rows) for name, item in chosen.items()},
        "paper": PAPER,
        "short": {name: item.short for name, item in chosen.items() if item.short},
        "left_out": {name: item.reasons() for name, item in chosen.items() if item.left_out},
        "not_needed": {name: item.not_needed for name, item in chosen.items() if item.not_needed},
        "stage1": split_stats(dialogues) | {"rejects": reject_stats(read_jsonl(rejects))},
        "train_rows_with_a_bench_picture": sum(pools.pool(row) == "none" for row in dialogues),
        "red_team": attack_stats(dialogues, read_jsonl(rejects)),
        "keep_rule": keep_stats([row.quality for row in bootstrapped], config.bootstrap),
        "history_risk": risk_table(risks.values()),
        "stage2_rejects": reject_stats(read_jsonl(ended)) if ended.is_file() else {},
    }


def split_stats(rows: Sequence[RowFacts]) -> dict[str, Any]:
    """Size, pictures, range and mean of the number of turns, and counts by kind, source, strategy and benchmark."""
    turns = [row.turns for row in rows]
    numbers: dict[str, Any] = {"size": len(rows), "pictures": len({path for row in rows for path in row.images})}
    if turns:
        numbers |= {"turns_min": min(turns), "turns_max": max(turns), "turns_mean": round(sum(turns) / len(turns), 2)}
    for name in ("kind", "source", "strategy", "benchmark"):
        numbers[name] = dict(sorted(Counter(str(getattr(row, name)) for row in rows if getattr(row, name)).items()))
    return numbers


def attack_stats(dialogues: Iterable[RowFacts], rejects: Iterable[dict]) -> dict[str, dict[str, dict[str, float]]]:
    """Tries and successes by strategy and by technique; an attack that ended without a verdict is not a try."""
    tries: dict[str, dict[str, list[int]]] = {
        "strategy": defaultdict(lambda: [0, 0]),
        "technique": defaultdict(lambda: [0, 0]),
    }
    outcomes = [(row.strategy, row.technique, 1) for row in dialogues if row.kind == "red_team"]
    outcomes += [(row["strategy"], row["technique"], 0) for row in rejects if row["reason"] == FAILED]
    for strategy, technique, success in outcomes:
        for name, value in (("strategy", strategy), ("technique", technique)):
            tries[name][value][0] += 1
            tries[name][value][1] += success
    return {
        name: {key: {"tries": n, "successes": k, "rate": round(k / n, 3)} for key, (n, k) in sorted(table.items())}
        for name, table in tries.items()
    }


def keep_stats(scored: Sequence[Quality], config: Bootstrap) -> dict[str, Any]:
    """How many scored dialogues are kept, why the others are not, and the table of thresholds."""
    reasons = Counter(why_dropped(quality, config.tau_safe, config.tau_help) for quality in scored)
    kept = reasons.pop("", 0)
    return {
        "tau_safe": config.tau_safe,
        "tau_help": config.tau_help,
        "scored": len(scored),
        "kept": kept,
        "dropped": dict(reasons.most_common()),
        "thresholds": threshold_table(scored, config.tau_safe, config.tau_help),
    }


def reject_stats(rejects: Iterable[dict]) -> dict[str, int]:
    """Rejects by reason."""
    return dict(Counter(row["reason"] for row in rejects).most_common())
