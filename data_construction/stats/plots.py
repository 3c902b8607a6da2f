"""The histogram of turns as a PNG."""

from collections.abc import Mapping
from pathlib import Path

from data_construction.stats.counts import DialogueCounts
from safer_steer import plots
from safer_steer.dialogue import Kind

COLOURS: dict[Kind, str] = {"benign": "#4c78a8", "obfuscated": "#f2a541", "red_team": "#c44e52"}


def plot_turns(splits: Mapping[str, DialogueCounts], path: Path) -> None:
    """Draws how many dialogues have how many user turns, a panel for each split, the kinds stacked."""
    shown = {name: counts for name, counts in splits.items() if counts.size}
    count = max(1, len(shown))
    figure, panels = plots.panels(count, count, figsize=(4 * count, 3.2), dpi=150, layout="constrained")
    for axes, (name, counts) in zip(panels, shown.items(), strict=False):
        numbers = range(min(counts.turns), max(counts.turns) + 1)
        bottom = [0] * len(numbers)
        for kind, colour in COLOURS.items():
            heights = [counts.turns_by_kind.get(kind, {}).get(number, 0) for number in numbers]
            axes.bar(numbers, heights, bottom=bottom, color=colour, label=kind, width=0.8)
            bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
        axes.axvline(counts.mean_turns, color="black", linewidth=1, linestyle="--", label="mean")
        axes.set(title=f"{name}: {counts.size:,}, mean {counts.mean_turns:.2f}", xlabel="user turns", xticks=numbers)
        axes.set_ylabel("dialogues")
        axes.spines[["top", "right"]].set_visible(False)
    if shown:
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    path.write_bytes(plots.png(figure))
