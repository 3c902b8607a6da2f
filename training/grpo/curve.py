"""The training curve of a GRPO run as a picture: metrics.jsonl -> curve.png and curve.svg.

Turn reward and fully-safe share over the steps, as sampled in training and on the held-out prompts where the run
validates; the three scores; the share of masked trajectories.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safer_steer import plots
from safer_steer.errors import UserError
from safer_steer.store import read_jsonl

# Panel title -> (label, metric) of its lines.
PANELS: dict[str, list[tuple[str, str]]] = {
    "mean turn reward": [("training", "tutor/turn_reward_mean"), ("held out", "val/tutor/turn_reward_mean")],
    "share of fully safe dialogues": [
        ("training", "tutor/fully_safe_share"),
        ("held out", "val/tutor/fully_safe_share"),
    ],
    "mean score, training": [(name, f"tutor/{name}_mean") for name in ("safety", "usefulness", "faithfulness")],
    "share of trajectories": [("masked", "rollout/masked_rate"), ("without a score", "rollout/unscored_rate")],
}
LIMITS = {"mean score, training": (1, 10)}  # of the axis, at least; else 0 to 1


def draw(rows: Sequence[dict[str, Any]], path: Path, title: str) -> None:
    """Draws the panels into a PNG file, and an SVG file next to it.

    Args:
        rows: rows of metrics.jsonl, in the order of their steps; a metric may be missing or null in any of them.
        path: the PNG file; the other one has its name.
        title: said on top.
    """
    from matplotlib.ticker import MaxNLocator

    figure, grid = plots.panels(len(PANELS), 2, figsize=(9.6, 6.4), dpi=130, layout="constrained")
    for axes, (name, lines) in zip(grid, PANELS.items(), strict=True):
        seen = list(LIMITS.get(name, (0, 1.02)))
        for number, (label, metric) in enumerate(lines):
            steps, values = plots.points(rows, metric)
            seen += values
            if steps:
                marker = "o" if metric.startswith("val/") else "."
                axes.plot(steps, values, marker=marker, label=label, markersize=4, linewidth=1.6, **plots.style(number))
        axes.set(title=name, xlabel="step", ylim=(min(seen), max(seen)))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if axes.has_data():
            axes.legend(fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=10)
    plots.write(figure, path)


def draw_run(folder: Path) -> Path:
    """Draws `folder`/curve.png from the run's metrics.

    Raises:
        UserError: there are no metrics.
    """
    rows = sorted(read_jsonl(folder / "metrics.jsonl"), key=lambda row: row["step"])
    if not rows:
        raise UserError(f"{folder / 'metrics.jsonl'} has no row yet; wait for the run's first step")
    draw(rows, folder / "curve.png", f"GRPO, {folder}: {rows[-1]['step']} steps")
    return folder / "curve.png"
