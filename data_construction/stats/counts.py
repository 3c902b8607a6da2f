"""Counts over dialogues: size, turns, kinds, sources, strategies; and the histogram of turns as a PNG."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from safer_steer import plots
from safer_steer.dialogue import Dialogue, Kind

COLOURS: dict[Kind, str] = {"benign": "#4c78a8", "obfuscated": "#f2a541", "red_team": "#c44e52"}


def row_table(rows: Iterable[Dialogue]) -> pd.DataFrame:
    """A row for each dialogue, with what is counted; `turns` is its number of user turns."""
    found = [(len(row.turns), row.kind, row.source, row.strategy, row.meta.get("split")) for row in rows]
    return pd.DataFrame(found, columns=["turns", "kind", "source", "strategy", "split"])


def counts(table: pd.DataFrame) -> dict[str, Any]:
    """Plain numbers, for `stats.json`."""
    numbers: dict[str, Any] = {"size": len(table)}
    if len(table):
        numbers |= {"turns_min": int(table.turns.min()), "turns_max": int(table.turns.max())}
        numbers["turns_mean"] = round(float(table.turns.mean()), 2)
        numbers["turns"] = {str(turns): number for turns, number in _sizes(table, "turns").items()}
    return numbers | {name: _sizes(table, name) for name in ("kind", "source", "strategy")}


def _sizes(table: pd.DataFrame, name: str) -> dict[Any, int]:
    return table[name].value_counts().sort_index().to_dict()


def plot_turns(splits: Mapping[str, pd.DataFrame], path: Path) -> None:
    """Draws how many dialogues have how many user turns, a panel for each split, the kinds stacked."""
    shown = {name: table for name, table in splits.items() if len(table)}
    count = max(1, len(shown))
    figure, panels = plots.panels(count, count, figsize=(4 * count, 3.2), dpi=150, layout="constrained")
    for axes, (name, table) in zip(panels, shown.items(), strict=False):
        numbers, mean = range(table.turns.min(), table.turns.max() + 1), table.turns.mean()
        heights = pd.crosstab(table.turns, table.kind).reindex(index=numbers, columns=[*COLOURS], fill_value=0)
        bottoms = heights.cumsum(axis=1) - heights
        for kind, colour in COLOURS.items():
            axes.bar(numbers, heights[kind], bottom=bottoms[kind], color=colour, label=kind, width=0.8)
        axes.axvline(mean, color="black", linewidth=1, linestyle="--", label="mean")
        axes.set(title=f"{name}: {len(table):,}, mean {mean:.2f}", xlabel="user turns", xticks=numbers)
        axes.set_ylabel("dialogues")
        axes.spines[["top", "right"]].set_visible(False)
    if shown:
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    path.write_bytes(plots.png(figure))
