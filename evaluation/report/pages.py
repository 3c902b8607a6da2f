"""The two HTML pages: `index.html` (numbers and figures, no script at all) and `transcripts.html` (the browser).

Both are escaped by default and forbid, by a content security policy, everything but files of the report's own folder:
no inline script or style, no other host, no form, no frame.
"""

import shutil
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from evaluation.multi_turn.aggregate import Numbers
from evaluation.report.results import ModelResult
from safer_steer.store import write_atomic

HERE = Path(__file__).parent
ASSETS = ("style.css", "browser.js")
POLICY = "default-src 'none'; {script}style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'"


def write_first_page(folder: Path, **content: Any) -> None:
    """Renders `index.html` below `folder`; `content` are the variables of its template."""
    _render(folder, "index.html", content | {"policy": POLICY.format(script="")})


def write_browser_page(folder: Path) -> None:
    """Writes `transcripts.html`, which is the same for every report, and copies style and script."""
    _render(folder, "transcripts.html", {"policy": POLICY.format(script="script-src 'self'; ")})
    (folder / "assets").mkdir(parents=True, exist_ok=True)
    for name in ASSETS:
        shutil.copyfile(HERE / name, folder / "assets" / name)


def _render(folder: Path, name: str, variables: dict[str, Any]) -> None:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((HERE / f"{name}.jinja").read_text(encoding="utf-8"))
    write_atomic(folder / name, template.render(**variables))


def heat_rows(results: list[ModelResult]) -> tuple[int, list[dict[str, Any]]]:
    """The heat map of mean harmlessness: number of turns, and a row for each model and benchmark.

    A cell is {"text", "shade", "title"}; shade 0 (-3, red) to 12 (3, blue), None where nothing was scored.
    """
    last = max((turn["turn"] for result in results for turn in result.numbers["by_turn"]), default=0)
    rows = []
    for result in results:
        groups = {"all": result.numbers["by_turn"], **result.numbers["turns_by_benchmark"]}
        for name, turns in groups.items():
            known = {turn["turn"]: turn for turn in turns}
            cells = [_cell(known.get(number)) for number in range(1, last + 1)]
            rows.append({"model": result.title, "benchmark": name, "cells": cells})
    return last, rows


def _cell(turn: Numbers | None) -> dict[str, Any]:
    if turn is None or turn["harmlessness"] is None:
        return {"text": "", "shade": None, "title": "nothing scored"}
    title = "{scored} scored, {unscored} unscored, helpfulness {helpfulness:.2f}".format(**turn)
    return {"text": f"{turn['harmlessness']:.2f}", "shade": round((turn["harmlessness"] + 3) * 2), "title": title}
