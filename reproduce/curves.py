"""The page's pictures: survival of the cells (Figure 4's form) and the training of the GRPO cells, over all seeds."""

from collections import defaultdict
from pathlib import Path
from typing import Any

from reproduce.cells import CELLS
from reproduce.comparisons import horizon
from reproduce.intervals import survived
from reproduce.results import Results
from safer_steer import plots
from safer_steer.store import read_jsonl

SURVIVAL_CELLS = ("base", "sft_single_turn", "sft", "grpo_single_turn", "grpo")
PANELS = {
    "turn reward": "tutor/turn_reward_mean",
    "share of fully safe dialogues": "tutor/fully_safe_share",
    "over-refusal, benign turns": "tutor/benign_over_refusal_share",
}


def survival_png(results: Results) -> bytes | None:
    """S(t) of each cell, dialogues of all seeds together; None without a cell."""
    cells = [cell for cell in SURVIVAL_CELLS if results.seeds(cell)]
    if not cells:
        return None
    last = horizon(results)
    figure, (axes,) = _figure(1)
    for index, cell in enumerate(cells):
        rows = [
            (item.last_turn, item.failed)
            for seed in results.cells[cell].values()
            for item in seed.of(single_turn=False)
        ]
        if rows:
            _line(axes, index, range(last + 1), survived(rows, last), CELLS[cell].title, step=True)
    axes.set(xlabel="turn t", ylabel="S(t)", ylim=(0, 1.02))
    axes.legend(fontsize=7, frameon=False)
    return plots.png(figure)


def training_png(root: Path) -> bytes | None:
    """Metrics over steps of each GRPO cell, mean over the seeds that have the step; None without a run."""
    curves = {}
    for cell in CELLS.values():
        files = sorted(root.glob(f"seed_*/{cell.folder}/metrics.jsonl")) if cell.stage == "grpo" else []
        if files:
            curves[cell.title] = [list(read_jsonl(path)) for path in files]
    if not curves:
        return None
    figure, panels = _figure(len(PANELS))
    for axes, (title, metric) in zip(panels, PANELS.items(), strict=True):
        for index, (name, runs) in enumerate(curves.items()):
            points = mean_curve(runs, metric)
            if points:
                _line(axes, index, *zip(*points, strict=True), label=name)
        axes.set(title=title, xlabel="step")
        axes.title.set_fontsize(8)
    panels[0].legend(fontsize=6, frameon=False)
    return plots.png(figure)


def mean_curve(runs: list[list[dict[str, Any]]], metric: str) -> list[tuple[int, float]]:
    """(step, mean over the runs that have a number there); training steps only, in order."""
    values: dict[int, list[float]] = defaultdict(list)
    for row in (row for run in runs for row in run):
        if row.get(metric) is not None:
            values[row["step"]].append(row[metric])
    return [(step, sum(found) / len(found)) for step, found in sorted(values.items())]


def _line(axes: Any, index: int, x: Any, y: Any, label: str, step: bool = False) -> None:
    drawn = "steps-post" if step else "default"
    axes.plot(x, y, label=label, drawstyle=drawn, linewidth=1.4, **plots.style(index))


def _figure(count: int) -> tuple[Any, list[Any]]:
    size = (4.8 if count == 1 else 3.4 * count, 3.0)
    figure, panels = plots.panels(count, count, figsize=size, dpi=100, layout="constrained")
    for axes in panels:
        axes.tick_params(labelsize=7)
    return figure, panels
