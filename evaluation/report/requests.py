"""What of the requests was left out or replaced: endpoints that refuse a parameter, and what the config says.

The step records in a model's folder (`infer.json`, `judge.json`, ...) -> a table of the report.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from evaluation.report.formats import ResultTable
from safer_steer.usage import changes


def step_records(folder: Path) -> list[Path]:
    """The records of the steps that called models."""
    return [*folder.glob("infer.json"), *sorted(folder.glob("judge*.json"))]


def requests_table(records: Mapping[str, Sequence[Path]]) -> ResultTable | None:
    """One row for each parameter, role and model; None when everything was sent as configured.

    Args:
        records: a model's title -> its step records.
    """
    rows = [
        [title, *change]
        for title, paths in records.items()
        for path in paths
        for change in changes(json.loads(path.read_text(encoding="utf-8")).get("usage", {}))
    ]
    columns = ["model", "role", "parameter", "what became of it"]
    return ResultTable("requests", "What was not sent as configured", columns, [*map(list, rows)]) if rows else None
