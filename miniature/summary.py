"""The quickstart's last step: one table and one `summary.json` out of what the stages left behind.

Input: `<root>/evaluation/summary.json`, `<root>/stages/*.json`. Output: `<root>/summary.json` and a table on the
terminal.
    python -m miniature.summary [--root outputs/quickstart]
"""

if __name__ == "__main__":  # before the imports below, which take seconds
    from safer_steer import interrupts

    interrupts.watch()

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from safer_steer.cli import exit_code
from safer_steer.errors import UserError
from safer_steer.store import write_atomic

FIELDS = ("safe", "help", "joint", "safe_ci", "n_dialogues", "unscored", "median_failure_turn")
TITLES = {"base": "Base", "sft": "SFT", "sft_grpo": "SFT+GRPO"}


def read_json(path: Path) -> dict:
    """A JSON file that a stage must have written."""
    if not path.is_file():
        raise UserError(f"file not found: {path}; run: bash scripts/quickstart.sh --root {path.parents[1]}")
    return json.loads(path.read_text(encoding="utf-8"))


def build_summary(root: Path) -> dict:
    """{"models": {name: figures}, "stages": {name: {"seconds", "peak_rss_mb"}}}; rates in percent."""
    evaluated = read_json(root / "evaluation" / "summary.json")["models"]
    models = {name: {field: evaluated[name][field] for field in FIELDS} for name in TITLES}
    stages = {}
    for path in sorted((root / "stages").glob("*.json"), key=lambda item: item.stat().st_mtime):
        record = json.loads(path.read_text(encoding="utf-8"))
        stages[path.stem] = {key: record[key] for key in ("seconds", "peak_rss_mb")}
    return {"models": models, "stages": stages}


def table(summary: dict) -> Table:
    """The table Base / SFT / SFT+GRPO."""
    result = Table(
        title="Miniature world: multi-turn pass rates on held-out pictures and phrasings (not the paper's numbers)"
    )
    columns = (
        "model",
        "safe %",
        "95 % interval",
        "help %",
        "joint %",
        "dialogues",
        "unscored turns",
        "median turn of first failure",
    )
    for column in columns:
        result.add_column(column, justify="left" if column == "model" else "right")
    for name, title in TITLES.items():
        row = summary["models"][name]
        low, high = row["safe_ci"]
        median = row["median_failure_turn"]
        cells = (f"{row['safe']:.1f}", f"{low:.1f}-{high:.1f}", f"{row['help']:.1f}", f"{row['joint']:.1f}")
        result.add_row(
            title, *cells, str(row["n_dialogues"]), str(row["unscored"]), "none" if median is None else f"{median:g}"
        )
    return result


def main() -> int:
    """Writes the summary and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="outputs/quickstart")
    root = Path(parser.parse_args().root)
    return exit_code(lambda: _say(root, build_summary(root)))


def _say(root: Path, summary: dict) -> None:
    write_atomic(root / "summary.json", json.dumps(summary, indent=1) + "\n")
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table(summary))
    seconds = sum(stage["seconds"] for stage in summary["stages"].values())
    peak = max((stage["peak_rss_mb"] for stage in summary["stages"].values()), default=0)
    print(f"{seconds / 60:.1f} minutes in all, at most {peak / 1024:.1f} GiB")
    print(f"report: {root}/report/index.html (next to it: tables.md, survival.png, transcripts.html)")
    print(f"numbers: {root}/summary.json")


if __name__ == "__main__":
    sys.exit(main())
