"""SPA-VL: safety preference pairs about pictures (Zhang et al. 2024, arXiv 2406.12030).

https://huggingface.co/datasets/sqrti/SPA-VL, checked against its card: parquet with `image`, `question`; train and
validation also `chosen`, `rejected`, train `image_name`, test and validation `class1`, `class2`, `class3`; the test has
the halves `harm` and `help`, 265 rows each. Files next to metadata as in the README of
https://github.com/EchoseChen/SPA-VL-RLHF: a JSON list with `id`, `image` (a path), `question`, `chosen`, `rejected`.
The hub's rows have no id: they are named by their content. `chosen` is not taken as the answer, it is often a refusal.
"""

from data_construction.sources.source import Source

SOURCE = Source(
    name="spa_vl",
    what="questions about pictures in 6 domains of harm, with preferred answers; train 93,258, test 530",
    licence="CC-BY-4.0",
    hub="sqrti/SPA-VL",
    splits={
        "train": ["data/train-*.parquet", "train.json"],
        "validation": ["validation/validation-*.parquet", "validation.json"],
        "test": ["test/h*-*.parquet", "test.json"],
        "test_harm": ["test/harm-*.parquet", "harm.json"],
        "test_help": ["test/help-*.parquet", "help.json"],
    },
    fields={
        "id": "id",
        "image": "image",
        "question": "question",
        "meta.image_name": "image_name",
        "meta.class1": "class1",
        "meta.class2": "class2",
        "meta.class3": "class3",
    },
    folders=["images", "{split}"],
)
