"""The report's figures: survival (Fig. 4), with a panel for all dialogues and one for each benchmark, and the curves of
the training runs, with a panel for each metric.
"""

import math
from pathlib import Path
from typing import Any

from evaluation.multi_turn.survival import RISK_ZONE, Curve
from safer_steer import plots
from safer_steer.store import read_jsonl

COLUMNS = 3
PANEL = (3.3, 2.35)  # inches, with its title and gaps
EDGES = {"left": 0.65, "right": 0.15, "top": 0.65, "bottom": 0.95}  # inches around the panels
FILES = ("metrics.jsonl", "log.jsonl")  # of GRPO and of SFT, one row per step
# Metric -> title of its panel; those that a run has are drawn, in this order.
METRICS = {
    "loss": "loss",
    "mean_token_accuracy": "token accuracy",
    "tutor/safety_mean": "tutor: mean safety (1-10)",
    "tutor/usefulness_mean": "tutor: mean usefulness (1-10)",
    "tutor/faithfulness_mean": "tutor: mean faithfulness (1-10)",
    "tutor/turn_reward_mean": "mean turn reward",
    "val/tutor/turn_reward_mean": "mean turn reward, held out",
    "tutor/fully_safe_share": "fully safe, share",
    "val/tutor/fully_safe_share": "fully safe, share, held out",
    "critic/rewards/mean": "mean return",
    "actor/kl_loss": "KL to the reference",
    "actor/grad_norm": "gradient norm",
    "rollout/unscored_rate": "unscored turns, share",
}
MARKED_STEPS = 60  # runs with fewer steps get a dot at each
Points = tuple[list[int], list[float]]


def _panels(count: int) -> tuple[Any, list[Any]]:
    """Rows of three, with fixed margins: matplotlib's layout engines take seconds."""
    columns = min(COLUMNS, count)
    width = PANEL[0] * columns + EDGES["left"] + EDGES["right"]
    height = PANEL[1] * math.ceil(count / columns) + EDGES["top"] + EDGES["bottom"]
    figure, grid = plots.panels(count, columns, figsize=(width, height), dpi=130)
    left, right, top, bottom = (
        EDGES[name] / size for name, size in zip(EDGES, (width, width, height, height), strict=True)
    )
    figure.subplots_adjust(left=left, right=1 - right, top=1 - top, bottom=bottom, wspace=0.2, hspace=0.32)
    for axes in grid:
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, grid


def write_survival(
    path: Path, panels: dict[str, dict[str, Curve]], *, failure_below: float, horizon: int, note: str | None = None
) -> None:
    """Draws panel title -> model title -> curve, each a step curve with its confidence band, as PNG and SVG."""
    figure, grid = _panels(len(panels))
    lines: dict[str, Any] = {}
    for axes, (title, curves) in zip(grid, panels.items(), strict=True):
        lines = _survival_panel(axes, title, curves, horizon) | lines
    figure.supxlabel("turn t", fontsize=9, y=0.45 / figure.get_figheight())
    figure.supylabel("S(t): share without a failure up to turn t", fontsize=9, x=0.15 / figure.get_figwidth())
    heading = f"Turn of the first failure (harmlessness < {failure_below:g}), 95 % bands; + marks censored dialogues"
    figure.suptitle(f"{heading}\n{note}" if note else heading, fontsize=9, va="top", y=0.99)
    figure.legend(lines.values(), lines.keys(), loc="lower center", ncols=4, fontsize=8, frameon=False)
    plots.write(figure, path)


def _survival_panel(axes: Any, title: str, curves: dict[str, Curve], horizon: int) -> dict[str, Any]:
    axes.axhspan(0.0, RISK_ZONE, facecolor="none", edgecolor="#c0392b", alpha=0.25, hatch="///", linewidth=0.0)
    axes.text(horizon - 0.1, 0.02, f"risk zone: S < {RISK_ZONE}", ha="right", va="bottom", fontsize=7, color="#8e2a1e")
    count = max((curve.at_risk[0] for curve in curves.values()), default=0)
    axes.set_title(f"{title} (n = {count})", fontsize=9)
    lines = {}
    for index, (model, curve) in enumerate(curves.items()):
        style, turns = plots.style(index), range(len(curve.survival))
        (lines[model],) = axes.step(turns, curve.survival, where="post", linewidth=1.8, **style)
        if None not in curve.lower:
            band = {"step": "post", "alpha": 0.15, "linewidth": 0}
            axes.fill_between(turns, curve.lower, curve.upper, color=style["color"], **band)
        gone = [turn for turn in turns if curve.censored[turn]]
        axes.plot(gone, [curve.survival[turn] for turn in gone], "+", color=style["color"], markersize=6)
    axes.set(xlim=(0, horizon), ylim=(0, 1.02), xticks=range(0, horizon + 1, max(1, horizon // 10)))
    return lines


def metric_rows(folder: Path) -> list[dict[str, Any]]:
    """The metrics of one training run, a row per step; none when its folder has no metric file."""
    path = next((folder / name for name in FILES if (folder / name).is_file()), None)
    return [] if path is None else list(read_jsonl(path))


def read_curves(folder: Path) -> dict[str, Points]:
    """Metric -> steps and values of one training run; none when its folder has no metric file."""
    rows = metric_rows(folder)
    return {metric: found for metric in METRICS if (found := plots.points(rows, metric))[0]}


def write_curves(path: Path, runs: dict[str, dict[str, Points]]) -> None:
    """Draws run title -> metric -> steps and values, as PNG and SVG."""
    curves = [(number, run, *curve) for number, (run, found) in enumerate(runs.items()) for curve in found.items()]
    figure, grid = _panels(len(curves))
    for axes, (number, run, metric, (steps, values)) in zip(grid, curves, strict=True):
        marker = "." if len(steps) < MARKED_STEPS else ""
        axes.plot(steps, values, marker=marker, linewidth=1.4, color=plots.style(number)["color"])
        axes.set_title(f"{run}: {METRICS[metric]}", fontsize=9)
    figure.supxlabel("step", fontsize=9, y=0.45 / figure.get_figheight())
    plots.write(figure, path)
