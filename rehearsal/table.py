"""The rehearsal's end: one table, the forecast, and the exit code."""

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from safer_steer.machine import Finding
from safer_steer.markdown import table

HEAD = ("check", "found", "needed", "verdict", "what to do")


def show(findings: Sequence[Finding], forecast: Sequence[str], seconds: float) -> tuple[str, int]:
    """Prints both; returns them as Markdown, and 1 when something would break, else 0."""
    console = Console(width=None if Console().is_terminal else 180)
    shown = Table(*HEAD, show_lines=True)
    for finding in findings:
        shown.add_row(finding.check, finding.found, finding.needed, finding.verdict, finding.advice)
    console.print(shown, markup=False)
    counts = Counter(finding.verdict for finding in findings)
    summary = ", ".join(f"{counts[name]} {name}" for name in ("ok", "warning", "not checked", "breaks") if counts[name])
    lines = ["forecast:", *(f"  {line}" for line in forecast)] if forecast else []
    lines.append(f"rehearsal: {summary}; {seconds:,.0f} s")
    print("\n".join(lines), flush=True)
    rows = [[_cell(part) for part in (f.check, f.found, f.needed, f.verdict, f.advice)] for f in findings]
    text = table(HEAD, rows).replace("--:", ":--") + "\n\n" + "\n".join(lines) + "\n"
    return text, 1 if counts["breaks"] else 0


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
