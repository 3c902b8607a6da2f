"""ScienceQA: school science questions with choices, about half with a picture (Lu et al. 2022, arXiv 2209.09513).

Parquet, as in https://huggingface.co/datasets/derek-thomas/ScienceQA, and in lmms-lab/ScienceQA, whose `ScienceQA-IMG`
has only the questions with a picture and is preferred (checked against both cards): `image`, `question`,
`choices`, `answer` (index from 0), `hint`, `task`, `grade`, `subject`, `topic`, `category`, `skill`, `lecture`,
`solution`; no id, so rows are named by their content. Files: `problems.json` of https://github.com/lupantech/ScienceQA,
an object problem id -> the same fields with `image` ("image.png" or null) and `split`, pictures in
`images/SPLIT/ID/image.png` (as public loaders read them). Questions without a picture are rejected: "no picture".
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_construction.sources.choices import LETTERS, chosen, with_choices
from data_construction.sources.row import BadRow
from data_construction.sources.source import Source

FILE_SPLITS = {"validation": "val"}


def _problem(record: dict[str, Any], file: Path, split: str) -> Iterator[dict[str, Any]]:
    key, file_split = record.get("key"), record.get("split")
    if file_split is not None and file_split != FILE_SPLITS.get(split, split):
        return
    text, choices, index = str(record["question"]).strip(), record["choices"], int(record["answer"])
    if not 0 <= index < len(choices):
        raise BadRow("bad answer", f"answer {index} is none of {len(choices)} choices")
    hint = str(record.get("hint") or "").strip()
    image = record.get("image")
    if image and isinstance(image, str) and key is not None:
        image = f"images/{file_split}/{key}/{image}"
    yield record | {
        "image": image,
        "question": with_choices(f"{hint}\n{text}" if hint and text else text, choices),
        "answer": chosen(choices, LETTERS[index]),
    }


SOURCE = Source(
    name="scienceqa",
    what="school science questions with choices and answer, 10,332 of 21,208 with a picture; benign",
    licence="CC-BY-NC-SA-4.0",
    hub="lmms-lab/ScienceQA",
    splits={
        split: [f"ScienceQA-IMG/{split}-*.parquet", f"data/{split}-*.parquet", "**/problems.json"]
        for split in ("train", "validation", "test")
    },
    fields={
        "id": ("id", "key"),
        "image": "image",
        "question": "question",
        "answer": "answer",
        "meta.subject": "subject",
        "meta.topic": "topic",
        "meta.grade": "grade",
        "meta.skill": "skill",
    },
    columns=["choices", "hint", "split"],
    adapt=_problem,
)
