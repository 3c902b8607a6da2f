"""Figures as PNG and SVG: panels in a grid, lines distinguished by colour and style, equal bytes for equal data."""

import io
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

# Okabe and Ito's, distinguished by colour-blind readers too; the line styles do it in print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
STYLES = ("-", "--", "-.", ":")


def style(index: int) -> dict[str, str]:
    """Colour and line style of the line of that number."""
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": STYLES[index % len(STYLES)]}


def panels(count: int, columns: int, **figure: Any) -> tuple[Any, list[Any]]:
    """A figure and its `count` axes, in rows of `columns`.

    Args:
        count: number of panels.
        columns: panels in a row.
        figure: `figsize` in inches, `dpi`, `layout` and the like.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # half a second of imports
    from matplotlib.figure import Figure

    drawn = Figure(**figure)
    FigureCanvasAgg(drawn)
    axes = list(drawn.subplots(math.ceil(count / columns), columns, squeeze=False).flat)
    for spare in axes[count:]:
        spare.set_visible(False)
    for panel in axes[:count]:
        panel.grid(alpha=0.25, linewidth=0.6)
    return drawn, axes[:count]


def points(rows: Iterable[dict[str, Any]], metric: str) -> tuple[list[int], list[float]]:
    """Steps and values of a metric over the rows that have a finite number of it."""
    found = [
        (row["step"], float(row[metric]))
        for row in rows
        if isinstance(row.get(metric), int | float) and math.isfinite(row[metric]) and isinstance(row.get("step"), int)
    ]
    return [step for step, _ in found], [value for _, value in found]


def png(figure: Any) -> bytes:
    """The figure as PNG, without metadata."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def write(figure: Any, path: Path) -> None:
    """Writes the figure as PNG and, for print and slides, as SVG: `path` with the ending replaced."""
    from matplotlib import rc_context

    path.with_suffix(".png").write_bytes(png(figure))
    with rc_context({"svg.hashsalt": path.stem}):  # equal names of its parts
        figure.savefig(path.with_suffix(".svg"), format="svg", metadata={"Date": None, "Creator": None})
