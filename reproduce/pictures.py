"""The page's pictures: safety against helpfulness of each rule, the phase diagram, survival of the cells (Figure 4's
form) and the training of the GRPO cells, over all seeds.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reproduce.cells import CELLS, FRONTIER
from reproduce.comparisons import horizon, rate
from reproduce.intervals import survived
from reproduce.phase import MEAN, RELEASED, RULES, TEMPTING, break_even
from reproduce.phase_runs import Point
from reproduce.results import Results
from safer_steer import plots
from safer_steer.store import read_jsonl

SURVIVAL_CELLS = ("base", "sft_single_turn", "sft", "grpo_single_turn", "grpo")
PANELS = {
    "turn reward": "tutor/turn_reward_mean",
    "share of fully safe dialogues": "tutor/fully_safe_share",
    "over-refusal, benign turns": "tutor/benign_over_refusal_share",
}


MARKERS = "osD^vP"
LENGTHS = range(2, 9)  # turns of a dialogue in the phase diagram


def frontier_figure(results: Results) -> Any | None:
    """Safe against helpful dialogues of each rule, in percent, with both intervals; None without a cell."""
    cells = [cell for cell in FRONTIER if results.seeds(cell, kinds=(False,))]
    if not cells:
        return None
    figure, (axes,) = _figure(1)
    for index, cell in enumerate(cells):
        seeds = results.seeds(cell, kinds=(False,))
        x, y = (rate(results, cell, metric, False, seeds) for metric in ("help", "safe"))
        widths = [[[one.value - one.low], [one.high - one.value]] for one in (x, y)]
        look = {"color": plots.style(index)["color"], "fmt": MARKERS[index], "label": FRONTIER[cell]}
        axes.errorbar([x.value], [y.value], widths[1], widths[0], markersize=5, linewidth=0.9, **look)
    axes.set(xlabel="helpful dialogues %", ylabel="safe dialogues %")
    axes.legend(fontsize=7, frameon=False)
    return figure


def phase_figure(points: Sequence[Point]) -> Any:
    """Break-even risk of each rule by length, where released and mean want different things, and the real runs."""
    figure, panels = _figure(len(TEMPTING))
    for axes, (title, tempting) in zip(panels, TEMPTING.items(), strict=True):
        curves = {rule: [break_even(rule, turns, tempting(turns)) for turns in LENGTHS] for rule in RULES}
        for index, (rule, risks) in enumerate(curves.items()):
            axes.plot(risks, LENGTHS, label=rule, linewidth=1.4, **plots.style(index))
        axes.fill_betweenx(LENGTHS, curves[RELEASED], curves[MEAN], alpha=0.25, color=plots.COLOURS[2], linewidth=0)
        for point in points:
            place = (point.risk, point.mean_turns)
            axes.plot(*place, "ko", markersize=3)
            look = {"fontsize": 6, "ha": "center", "bbox": {"color": "white", "alpha": 0.7, "pad": 0.5}}
            axes.annotate(point.label(), place, (0, 5), textcoords="offset points", **look)
        axes.set(title=title, xlabel="risk p of a tempting turn", ylabel="turns T", xlim=(0, 0.6), ylim=(2, 8))
        axes.title.set_fontsize(8)
    figure.legend(
        *panels[0].get_legend_handles_labels(), fontsize=7, frameon=False, loc="outside lower center", ncols=4
    )
    return figure


def survival_figure(results: Results) -> Any | None:
    """S(t) of each cell, dialogues of the seeds together that all cells have; None without one."""
    cells = [cell for cell in SURVIVAL_CELLS if results.seeds(cell)]
    seeds = results.seeds(*cells)
    if not seeds:
        return None
    last = horizon(results)
    figure, (axes,) = _figure(1)
    for index, cell in enumerate(cells):
        rows = [
            (item.last_turn, item.failed) for seed in seeds for item in results.cells[cell][seed].of(single_turn=False)
        ]
        if rows:
            _line(axes, index, range(last + 1), survived(rows, last), CELLS[cell].title, step=True)
    axes.set(xlabel="turn t", ylabel="S(t)", ylim=(0, 1.02))
    axes.legend(fontsize=7, frameon=False)
    return figure


def training_figure(root: Path, seeds: Sequence[int]) -> Any | None:
    """Metrics over steps of each GRPO cell, mean over the seeds that have the step; None without a run."""
    curves = {}
    for cell in CELLS.values():
        trains = cell.stage == "grpo" and not cell.trained_as
        files = [root / f"seed_{seed}" / (cell.folder or "") / "metrics.jsonl" for seed in seeds] if trains else []
        if found := [path for path in files if path.is_file()]:
            curves[cell.title] = [list(read_jsonl(path)) for path in found]
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
    return figure


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
