"""Training curves for the report, out of the metric files that the training stages leave in their run folders.

`<run>/log.jsonl` (SFT) or `<run>/metrics.jsonl` (GRPO), one row a step -> `training_curves` -> a PNG.
"""

import math
from dataclasses import dataclass
from pathlib import Path

from evaluation.report.figure import panel_grid, png
from safer_steer.colours import OKABE_ITO
from safer_steer.store import read_jsonl

FILES = ("metrics.jsonl", "log.jsonl")
# Metric -> title of its panel; the first ones that a file has are drawn, in this order.
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


@dataclass(frozen=True)
class TrainingCurve:
    """One metric of one run over its steps; a step without the metric, or with no finite value, is left out."""

    run: str
    metric: str
    steps: list[int]
    values: list[float]


def read_curves(run: str, folder: Path) -> list[TrainingCurve]:
    """The metrics of one run folder; none when it has no metric file."""
    path = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if path is None:
        return []
    points: dict[str, list[tuple[int, float]]] = {}
    for row in read_jsonl(path):
        for metric in METRICS.keys() & row.keys():
            value = row[metric]
            if isinstance(value, int | float) and math.isfinite(value) and isinstance(row.get("step"), int):
                points.setdefault(metric, []).append((row["step"], float(value)))
    found = [metric for metric in METRICS if metric in points]
    return [TrainingCurve(run, metric, *map(list, zip(*points[metric], strict=True))) for metric in found]


def curves_png(curves: list[TrainingCurve]) -> bytes:
    """One small panel for each metric of each run."""
    figure, grid = panel_grid(len(curves))
    runs = list(dict.fromkeys(curve.run for curve in curves))
    for axes, curve in zip(grid, curves, strict=True):
        marker = "." if len(curve.steps) < MARKED_STEPS else ""
        colour = OKABE_ITO[runs.index(curve.run) % len(OKABE_ITO)]
        axes.plot(curve.steps, curve.values, marker=marker, linewidth=1.4, color=colour)
        axes.set_title(f"{curve.run}: {METRICS[curve.metric]}", fontsize=9)
    figure.supxlabel("step", fontsize=9, y=0.45 / figure.get_figheight())
    return png(figure)
