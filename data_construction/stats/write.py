"""Writes the stats of a step: `NAME.json`, `NAME.md`, and the histogram of turns.

Stage I: `stats.stage1.json`, `stats.stage1.md`, `turns.stage1.png`; assembly: the same without `stage1`.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from data_construction.stats.attacks import attack_stats
from data_construction.stats.counts import counts, plot_turns, row_table
from data_construction.stats.tables import attack_table, change_table, cost_table, reason_table, table_one
from safer_steer.dialogue import Dialogue
from safer_steer.store import read_jsonl, write_atomic
from safer_steer.usage import changes


def write_stage_one_stats(folder: Path, ends: Mapping[str, Any], usage: Mapping[str, Mapping[str, Any]]) -> None:
    """Reads Stage I's files in streaming passes and writes its stats.

    Args:
        folder: the data folder.
        ends: what came in, was kept and was rejected, as in `run.stage1.json`.
        usage: role -> calls, tokens, USD.
    """
    rows = row_table(read_jsonl(folder / "dialogues.jsonl", Dialogue))
    splits = {f"{split} candidates": rows[rows.split == split] for split in ("train", "bench")}
    duplicates = Counter(
        f"{row['reason']}: {row['kind']} like {row['of_kind']}" for row in read_jsonl(folder / "duplicates.jsonl")
    )
    candidates = read_jsonl(folder / "candidates.jsonl", Dialogue)
    stats = {
        "counts": dict(ends),
        "splits": {name: counts(split) for name, split in splits.items()},
        "rejects": dict(Counter(row["reason"] for row in read_jsonl(folder / "rejects.jsonl")).most_common()),
        "duplicates": dict(duplicates.most_common()),
        "red_team": attack_stats(candidates, read_jsonl(folder / "rejects.jsonl")),
        "usage": dict(usage),
    }
    write_stats(folder, stats, splits, "Stage I", suffix=".stage1")


def write_stats(
    folder: Path,
    stats: Mapping[str, Any],
    splits: Mapping[str, pd.DataFrame],
    title: str,
    *,
    suffix: str = "",
    more: Sequence[str] = (),
) -> None:
    """Writes `stats` as JSON and, as far as they are in it, its tables as Markdown; draws the turns of `splits`.

    `more` are sections of the step's own, below Table 1.
    """
    sections = [f"# {title}", table_one(splits), f"![Turns](turns{suffix}.png)", *more]
    attacks = stats.get("red_team") or {}
    for name in ("strategy", "technique"):
        if attacks.get(name):
            sections += [f"## Attacks by {name}", attack_table(attacks[name], name.capitalize())]
    if attacks.get("without_verdict"):
        sections += ["Attacks without a verdict, in no rate:", reason_table(attacks["without_verdict"])]
    for name in ("rejects", "duplicates"):
        if stats.get(name):
            sections += [f"## {name.capitalize()}", reason_table(stats[name])]
    if stats.get("usage"):
        sections += [
            "## Calls and cost",
            "Of all attempts in this folder but those killed by force.",
            cost_table(stats["usage"]),
        ]
        if changes(stats["usage"]):
            sections += ["Not sent as configured:", change_table(stats["usage"])]
    plot_turns(splits, folder / f"turns{suffix}.png")
    write_atomic(folder / f"stats{suffix}.md", "\n\n".join(sections) + "\n")
    write_atomic(folder / f"stats{suffix}.json", json.dumps(stats, indent=1, ensure_ascii=False) + "\n")
