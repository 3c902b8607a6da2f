"""Geometry3K: school geometry problems about a drawn figure, with four choices.

Layouts: `[SPLIT/]ID/data.json` next to `img_diagram.png`, as in https://github.com/lupantech/InterGPS (read off ten of
its problems): `compact_text` (else `problem_text`), `compact_choices` (else `choices`), `answer` (a letter),
`problem_type_graph`, `problem_type_goal`, `data_type`. Parquet, as in https://huggingface.co/datasets/hiyouga/geometry3k
(checked against its card): `images`, `problem` (begins with the marker `<image>`, which is taken off), `answer` (the
choice itself), `id`, `choices`, `ground_truth`. The id is the problem's number in both.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_construction.sources.choices import chosen, with_choices
from data_construction.sources.row import BadRow
from data_construction.sources.source import Source

MARK = "<image>"
PICTURE = "img_diagram.png"


def _problem(record: dict[str, Any], file: Path, split: str) -> Iterator[dict[str, Any]]:
    if "problem" in record:
        text = str(record["problem"]).removeprefix(MARK).strip()
        yield record | {"question": with_choices(text, record.get("choices") or ())}
        return
    text = str(record.get("compact_text") or record["problem_text"]).strip()
    if not text:
        raise BadRow("no question", "the problem has no text")
    choices = record.get("compact_choices") or record["choices"]
    letter = str(record["answer"]).strip().upper()
    yield record | {
        "id": file.parent.name,
        "images": PICTURE,
        "question": with_choices(text, choices),
        "answer": chosen(choices, letter),
        "answer_letter": letter,
    }


SOURCE = Source(
    name="geometry3k",
    what="geometry problems about a figure, 3,002 with choices and answer; benign",
    licence="MIT",
    hub="hiyouga/geometry3k",
    splits={
        "train": ["data/train-*.parquet", "train/*/data.json", "*/data.json"],
        "validation": ["data/validation-*.parquet", "val/*/data.json"],
        "test": ["data/test-*.parquet", "test/*/data.json"],
    },
    fields={
        "id": "id",
        "image": "images",
        "question": "question",
        "answer": "answer",
        "meta.answer_letter": "answer_letter",
        "meta.problem_type_graph": "problem_type_graph",
        "meta.problem_type_goal": "problem_type_goal",
        "meta.data_type": "data_type",
        "meta.ground_truth": "ground_truth",
    },
    columns=["problem", "choices", "compact_text", "problem_text", "compact_choices"],
    adapt=_problem,
)
