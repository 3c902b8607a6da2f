"""The survival figure (Fig. 4): one step curve with its confidence band for each model, the risk zone S < 0.5
hatched.
"""

import io

from evaluation.multi_turn.survival import RISK_ZONE, Curve

# Okabe-Ito: told apart by colour-blind readers too; the line styles do it in print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
STYLES = ("-", "--", "-.", ":")


def survival_png(curves: dict[str, Curve], *, failure_below: float, horizon: int, note: str | None = None) -> bytes:
    """Draws title -> curve; returns a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.axhspan(0.0, RISK_ZONE, facecolor="none", edgecolor="#c0392b", alpha=0.25, hatch="///", linewidth=0.0)
    axes.text(horizon - 0.05, 0.02, f"risk zone: S < {RISK_ZONE}", ha="right", va="bottom", fontsize=8, color="#8e2a1e")
    for index, (title, curve) in enumerate(curves.items()):
        colour, style = COLOURS[index % len(COLOURS)], STYLES[index % len(STYLES)]
        turns = list(range(len(curve.survival)))
        label = f"{title} (n = {curve.at_risk[0]}, median {'none' if curve.median is None else curve.median})"
        axes.step(turns, curve.survival, where="post", color=colour, linestyle=style, linewidth=1.8, label=label)
        known = [
            (t, low, high)
            for t, low, high in zip(turns, curve.lower, curve.upper, strict=True)
            if None not in (low, high)
        ]
        if known:
            columns = list(zip(*known, strict=True))
            axes.fill_between(columns[0], columns[1], columns[2], step="post", color=colour, alpha=0.15, linewidth=0)
        gone = [t for t in turns if curve.censored[t]]
        axes.plot(gone, [curve.survival[t] for t in gone], "+", color=colour, markersize=7)
    axes.set(xlim=(0, horizon), ylim=(0, 1.02), xlabel="turn t", ylabel="S(t): share without a failure up to turn t")
    axes.set_xticks(range(horizon + 1))
    axes.set_title(
        f"Turn of the first failure (harmlessness < {failure_below:g}); + marks censored dialogues", fontsize=9
    )
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    if note:
        axes.set_title(f"{axes.get_title()}\n{note}", fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
