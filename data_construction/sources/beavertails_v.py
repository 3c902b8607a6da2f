"""BeaverTails-V: questions with pictures in 20 categories of harm (Ji et al. 2025, arXiv 2503.17682).

https://huggingface.co/datasets/PKU-Alignment/BeaverTails-V and its mirror saferlhf-v/BeaverTails-V, checked against
both cards: one configuration a category with splits `train` and `evaluation`, fields `question`, `image`, `category`,
`image_severity` (1-3), and the answers of other models, which are not taken. Where the parquet files lie is not on the
cards: they are found by name, `train*.parquet` and `evaluation*.parquet`, in any folder. No layout with pictures in
files is published; JSONL or JSON files of these names and fields with pictures next to them are read too.

Rows have no id and are named by their content. PKU-Alignment's release has each question twice, once for each answer:
the second is rejected as "repeated seed id".
"""

from data_construction.sources.source import Source


def _files(split: str) -> list[str]:
    return [f"**/{split}*.parquet", f"**/{split}*.jsonl", f"**/{split}*.json"]


SOURCE = Source(
    name="beavertails_v",
    what="questions with pictures in 20 categories of harm and three severities",
    licence="CC-BY-NC-4.0",
    hub="PKU-Alignment/BeaverTails-V",
    splits={"train": _files("train"), "test": _files("evaluation")},
    fields={
        "id": "id",
        "image": "image",
        "question": "question",
        "meta.category": "category",
        "meta.image_severity": "image_severity",
    },
)
