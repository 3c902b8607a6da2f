"""VLSBench: pictures whose risk the question does not give away (Hu et al. 2024, arXiv 2411.19939).

`data.json` as in https://github.com/AI45Lab/VLSBench and https://huggingface.co/datasets/Foreshhh/vlsbench (fields read
off twelve rows): `instruction_id`, `instruction`, `image_path` ("imgs/4.png"), `category`, `sub_category`, `source`,
`image_description`, `safety_reason`; pictures in `imgs/` or `imgs.tar`. A parquet release with `image` in place of
`image_path`, which public code reads, is taken too, not verified on a file.
"""

from data_construction.sources.source import Source

SOURCE = Source(
    name="vlsbench",
    what="2,241 harmless-looking questions whose risk lies in the picture",
    licence="Apache-2.0",
    hub="Foreshhh/vlsbench",
    splits={"all": ["data.json", "data/data.json", "**/*.parquet"]},
    fields={
        "id": "instruction_id",
        "image": ("image", "image_path"),
        "question": "instruction",
        "meta.category": "category",
        "meta.sub_category": "sub_category",
        "meta.picture_source": "source",
        "meta.image_description": "image_description",
        "meta.safety_reason": "safety_reason",
    },
    archives=["imgs.tar"],
)
