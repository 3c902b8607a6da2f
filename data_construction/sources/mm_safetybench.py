"""MM-SafetyBench: questions in 13 scenarios, their key phrase moved into a picture (Liu et al. 2024, arXiv 2311.17600).

Parquet, as in https://huggingface.co/datasets/PKU-Alignment/MM-SafetyBench (its file tree, and the columns `id`,
`question`, `image` that public loaders read): `data/SCENARIO/TYPE.parquet`. Files, as public loaders read the original
release of https://github.com/isXinLiu/MM-SafetyBench: `processed_questions/NN-SCENARIO.json`, an object question id ->
`Question`, `Changed Question`, `Key Phrase`, `Phrase Type`, `Rephrased Question`, `Rephrased Question(SD)`, with
pictures in `imgs/NN-SCENARIO/TYPE/ID.jpg`. Neither was verified on a file.

The split is the picture's type: SD (generated), TYPO (the phrase as text), SD_TYPO (both). The question is
`Rephrased Question(SD)` for SD, else `Rephrased Question`. The id is SCENARIO/TYPE/ID, without NN, in both layouts.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_construction.sources.source import Source


def _seed(record: dict[str, Any], file: Path, split: str) -> Iterator[dict[str, Any]]:
    key = record.get("key")
    folder = file.stem if key is not None else file.parent.name
    scenario = re.sub(r"^\d+-", "", folder)
    seed = record | {"id": f"{scenario}/{split}/{record['id'] if key is None else key}", "scenario": scenario}
    if key is not None:
        seed["image"] = f"imgs/{folder}/{split}/{key}.jpg"
        seed["question"] = record["Rephrased Question(SD)" if split == "SD" else "Rephrased Question"]
        seed["phrase_type"] = record.get("Phrase Type")
    yield seed


SOURCE = Source(
    name="mm_safetybench",
    what="5,040 questions in 13 scenarios, their key phrase shown in a picture",
    licence="CC-BY-NC-4.0",
    hub="PKU-Alignment/MM-SafetyBench",
    splits={
        kind: [f"data/*/{kind}.parquet", "processed_questions/*.json", "data/processed_questions/*.json"]
        for kind in ("SD_TYPO", "SD", "TYPO")
    },
    fields={
        "id": "id",
        "image": "image",
        "question": "question",
        "meta.scenario": "scenario",
        "meta.phrase_type": "phrase_type",
    },
    folders=["data"],
    columns=["key", "Rephrased Question(SD)", "Rephrased Question", "Phrase Type"],
    adapt=_seed,
)
