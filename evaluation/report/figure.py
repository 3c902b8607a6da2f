"""The survival figure (Fig. 4): one panel for all dialogues and one for each benchmark; a step curve with its
confidence band for each model, the risk zone S < 0.5 hatched.
"""

import io
import math
from typing import Any

from evaluation.multi_turn.survival import RISK_ZONE, Curve
from safer_steer.colours import OKABE_ITO

# Okabe-Ito: told apart by colour-blind readers too; the line styles do it in print.
STYLES = ("-", "--", "-.", ":")
COLUMNS = 3
PANEL = (3.3, 2.35)  # inches, with its title and gaps
EDGES = {"left": 0.65, "right": 0.15, "top": 0.65, "bottom": 0.95}  # inches around the panels


def panel_grid(count: int) -> tuple[Any, list[Any]]:
    """A figure and its `count` axes, in rows of three. Fixed margins: matplotlib's layout engines take seconds."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(COLUMNS, count)
    rows = math.ceil(count / columns)
    width = PANEL[0] * columns + EDGES["left"] + EDGES["right"]
    height = PANEL[1] * rows + EDGES["top"] + EDGES["bottom"]
    figure = Figure(figsize=(width, height), dpi=130)
    FigureCanvasAgg(figure)
    margins = {name: EDGES[name] / (width if name in ("left", "right") else height) for name in EDGES}
    figure.subplots_adjust(
        margins["left"], margins["bottom"], 1 - margins["right"], 1 - margins["top"], wspace=0.2, hspace=0.32
    )
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for spare in axes[count:]:
        spare.set_visible(False)
    for panel in axes[:count]:
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(alpha=0.2, linewidth=0.6)
    return figure, axes[:count]


def png(figure: Any) -> bytes:
    """The figure as PNG, without metadata, so that equal figures are equal files."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def survival_png(
    panels: dict[str, dict[str, Curve]], *, failure_below: float, horizon: int, note: str | None = None
) -> bytes:
    """Draws panel title -> model title -> curve; returns a PNG."""
    figure, grid = panel_grid(len(panels))
    lines: dict[str, Any] = {}
    for axes, (title, curves) in zip(grid, panels.items(), strict=True):
        lines = _panel(axes, title, curves, horizon) | lines
    figure.supxlabel("turn t", fontsize=9, y=0.45 / figure.get_figheight())
    figure.supylabel("S(t): share without a failure up to turn t", fontsize=9, x=0.15 / figure.get_figwidth())
    heading = f"Turn of the first failure (harmlessness < {failure_below:g}), 95 % bands; + marks censored dialogues"
    figure.suptitle(f"{heading}\n{note}" if note else heading, fontsize=9, va="top", y=0.99)
    figure.legend(lines.values(), lines.keys(), loc="lower center", ncols=4, fontsize=8, frameon=False)
    return png(figure)


def _panel(axes: Any, title: str, curves: dict[str, Curve], horizon: int) -> dict[str, Any]:
    axes.axhspan(0.0, RISK_ZONE, facecolor="none", edgecolor="#c0392b", alpha=0.25, hatch="///", linewidth=0.0)
    axes.text(horizon - 0.1, 0.02, f"risk zone: S < {RISK_ZONE}", ha="right", va="bottom", fontsize=7, color="#8e2a1e")
    count = max((curve.at_risk[0] for curve in curves.values()), default=0)
    axes.set_title(f"{title} (n = {count})", fontsize=9)
    lines = {}
    for index, (model, curve) in enumerate(curves.items()):
        colour, style = OKABE_ITO[index % len(OKABE_ITO)], STYLES[index % len(STYLES)]
        turns = list(range(len(curve.survival)))
        (lines[model],) = axes.step(turns, curve.survival, where="post", color=colour, linestyle=style, linewidth=1.8)
        known = [
            (turn, low, high)
            for turn, low, high in zip(turns, curve.lower, curve.upper, strict=True)
            if None not in (low, high)
        ]
        if known:
            places, low, high = zip(*known, strict=True)
            axes.fill_between(places, low, high, step="post", color=colour, alpha=0.15, linewidth=0)
        gone = [turn for turn in turns if curve.censored[turn]]
        axes.plot(gone, [curve.survival[turn] for turn in gone], "+", color=colour, markersize=6)
    axes.set(xlim=(0, horizon), ylim=(0, 1.02), xticks=range(0, horizon + 1, max(1, horizon // 10)))
    return lines
