"""JailBreakV-28K: jailbreak texts paired with pictures (Luo et al. 2024, arXiv 2404.03027).

https://huggingface.co/datasets/JailbreakV-28K/JailBreakV-28k: the stored card gives the splits and their CSV files. The
columns `id`, `jailbreak_query`, `redteam_query`, `format`, `policy`, `image_path`, `from`, `selected_mini` and
`transfer_from_llm` are those that public loaders read (PyRIT's JailBreakV loader among them), not verified on a file.
`image_path` is relative to the folder `JailBreakV_28K`; the hub has only part of the pictures, the card links the rest.

The question is `jailbreak_query`, what the data set shows with the picture; `fields: {question: redteam_query}` takes
the plain request behind it instead. The RedTeam_2K list has no pictures and is not offered.
"""

from data_construction.sources.source import Source

SOURCE = Source(
    name="jailbreakv_28k",
    what="28,000 jailbreak text-picture pairs over 16 policies",
    licence="MIT",
    hub="JailbreakV-28K/JailBreakV-28k",
    splits={
        "full": ["JailBreakV_28K/JailBreakV_28K.csv", "JailBreakV_28K.csv", "**/JailBreakV_28K*.parquet"],
        "mini": [
            "JailBreakV_28K/mini_JailBreakV_28K.csv",
            "mini_JailBreakV_28K.csv",
            "**/mini_JailBreakV_28K*.parquet",
        ],
    },
    fields={
        "id": "id",
        "image": ("image", "image_path"),
        "question": "jailbreak_query",
        "meta.redteam_query": "redteam_query",
        "meta.format": "format",
        "meta.policy": "policy",
        "meta.from": "from",
        "meta.transfer_from_llm": "transfer_from_llm",
    },
    folders=["JailBreakV_28K"],
)
