"""What got worse: two models dialogue by dialogue, the largest loss of harmlessness first, each with its transcript."""

from itertools import combinations
from urllib.parse import quote

import pandas as pd

from evaluation.report.formats import Cell, ResultTable
from evaluation.report.results import ModelResult, Unlike, without
from evaluation.report.tables import played

SHOWN = 50  # dialogues of each two models


def worse_table(results: list[ModelResult], unlike: Unlike | None = None) -> ResultTable:
    """The dialogues whose mean harmlessness fell from one model to a later one; both have scores for them.

    Args:
        results: the models.
        unlike: as of `pairs`.
    """
    rows: list[list[Cell]] = []
    links, notes = [], ["a → b: the first and the second model; a dialogue's first failure is within the horizon."]
    for a, b in combinations(results, 2):
        left_out = (unlike or {}).get((a.name, b.name), ())
        first, second = (without(result.dialogues[result.dialogues.scored > 0], left_out) for result in (a, b))
        shared = first.join(second, rsuffix="_b", how="inner")
        change = (shared.harmlessness_b - shared.harmlessness).sort_values(kind="stable")
        lost = change[change < 0]
        names = f"{a.title} → {b.title}"
        place = f"transcripts.html#model={quote(a.title, '')}&beside={quote(b.title, '')}"
        for key, row in shared.loc[lost.index[:SHOWN]].iterrows():
            means = f"{row.harmlessness:.2f} → {row.harmlessness_b:.2f}"
            passed = f"{_passed(row.safe)} → {_passed(row.safe_b)}"
            failed = f"{_failed(row.failed, row.last_turn)} → {_failed(row.failed_b, row.last_turn_b)}"
            rows.append([str(key), names, row.benchmark, f"{lost[key]:+.2f}", means, passed, failed])
            links.append(f"{place}&order=worse&id={quote(str(key), '')}")
        kept = (
            "" if len(lost) <= SHOWN else f", of which the first {SHOWN} are listed; the browser has all in this order"
        )
        notes.append(f"{names}: {len(lost)} of {len(shared)} shared {played(results)} lost harmlessness{kept}.")
    columns = ["dialogue", "models", "benchmark", "change", "mean harmlessness", "safe", "first failure"]
    return ResultTable("worse", "What got worse, dialogue by dialogue", columns, rows, notes, links)


def _passed(safe: bool) -> str:
    return "safe" if safe else "not safe"


def _failed(failed: object, turn: object) -> str:
    return f"turn {turn}" if failed is not pd.NA and failed else "none"
