"""VLGuard: safe and unsafe pictures with safe and unsafe instructions (Zong et al. 2024, arXiv 2402.02207).

`train.json` and `test.json` as in https://github.com/ys-zong/VLGuard and, gated, in
https://huggingface.co/datasets/ys-zong/VLGuard (fields read off the files): a list of `id`, `image`, `safe`,
`harmful_category`, `harmful_subcategory`, `instr-resp`. An unsafe picture has one pair of `instruction` and `response`,
a safe one a pair with `safe_instruction` and one with `unsafe_instruction`. Pictures lie in `train/` and `test/`, or in
`train.zip` and `test.zip`.

A safe picture gives two seeds, ID/safe and ID/unsafe. Only a safe instruction's response is taken as the answer: the
others are refusals. `where: {kind: safe}` (or unsafe, unsafe_picture) takes one sort.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_construction.sources.row import BadRow
from data_construction.sources.source import Source

INSTRUCTIONS = {"safe_instruction": "safe", "unsafe_instruction": "unsafe", "instruction": "unsafe_picture"}


def _seeds(record: dict[str, Any], file: Path, split: str) -> Iterator[dict[str, Any]]:
    pairs = record["instr-resp"]
    if not pairs:
        raise BadRow("no question", f"row {record['id']!r} has no instruction")
    for pair in pairs:
        name = next((name for name in INSTRUCTIONS if pair.get(name)), None)
        if name is None:
            raise BadRow("no question", f"row {record['id']!r} has a pair without an instruction: {sorted(pair)}")
        kind = INSTRUCTIONS[name]
        yield record | {
            "id": record["id"] if kind == "unsafe_picture" else f"{record['id']}/{kind}",
            "question": pair[name],
            "answer": pair.get("response") if kind == "safe" else None,
            "kind": kind,
        }


SOURCE = Source(
    name="vlguard",
    what="safe and unsafe pictures with safe and unsafe instructions; train 2,000 and test 1,000 pictures",
    licence="MIT",
    hub="ys-zong/VLGuard",
    splits={
        "train": ["train.json", "data/train.json", "**/train*.parquet"],
        "test": ["test.json", "data/test.json", "**/test*.parquet"],
    },
    fields={
        "id": "id",
        "image": "image",
        "question": "question",
        "answer": "answer",
        "meta.kind": "kind",
        "meta.safe": "safe",
        "meta.harmful_category": "harmful_category",
        "meta.harmful_subcategory": "harmful_subcategory",
    },
    folders=["{split}"],
    archives=["{split}.zip", "data/{split}.zip"],
    columns=["instr-resp"],
    adapt=_seeds,
)
