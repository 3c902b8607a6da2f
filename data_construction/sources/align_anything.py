"""Align-Anything, its text+image part: everyday questions about pictures with two rated answers (arXiv 2412.15838).

https://huggingface.co/datasets/PKU-Alignment/align-anything, checked against its card (`example_ti2t`) and the
project's documentation: `text-image-to-text/train_40k.parquet` and `val_1k.parquet` with `question`, `image`,
`response_1`, `response_2`, `overall_response` (1 or 2, the better one, which becomes the answer). The card names no id:
rows are named by their content. The older JSON next to `images.tar.gz` (`0928_20k`) is not described there; a
`train.json` or `val.json` of the same fields with unpacked pictures is read, not verified on a file.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_construction.sources.source import Source


def _with_better_answer(record: dict[str, Any], file: Path, split: str) -> Iterator[dict[str, Any]]:
    better = record.get("overall_response")
    yield record | {"answer": record.get(f"response_{int(better)}") if str(better) in ("1", "2") else None}


SOURCE = Source(
    name="align_anything",
    what="questions about pictures with the better of two answers, 39,216; benign, text+image",
    licence="CC-BY-NC-4.0",
    hub="PKU-Alignment/align-anything",
    splits={
        "train": ["text-image-to-text/train*.parquet", "train*.parquet", "train.json"],
        "validation": ["text-image-to-text/val*.parquet", "val*.parquet", "val.json"],
    },
    fields={"id": "id", "image": "image", "question": "question", "answer": "answer"},
    folders=["images"],
    columns=["overall_response", "response_1", "response_2"],
    adapt=_with_better_answer,
)
