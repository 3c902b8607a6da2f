"""A world for SFT's engine tests: a tiny random checkpoint and 16 dialogues, every fourth without a picture."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from safer_steer.config import load_config
from safer_steer.dialogue import Dialogue
from safer_steer.store import write_jsonl
from training.sft.config import SftConfig

ROWS = 16
SMALL = (
    "training.batch_size=4",
    "training.per_device_batch_size=2",
    "training.gradient_accumulation=2",
    "training.epochs=2",
    "training.learning_rate=5e-4",
    "training.save_every=3",
    "training.keep_checkpoints=9",
)


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> Path:
    """The root folder."""
    import torch

    from miniature.student import build_model, build_processor

    root = tmp_path_factory.mktemp("sft")
    (root / "data" / "images").mkdir(parents=True)
    torch.manual_seed(0)
    processor = build_processor()
    build_model(processor.tokenizer, layers=2).save_pretrained(root / "base")
    processor.save_pretrained(root / "base")
    rows = []
    for index in range(ROWS):
        path = f"images/{index}.png"
        Image.new("RGB", (56, 56), (index * 15, 100, 50)).save(root / "data" / path)
        turns = [
            {"user": f"What is this, {index}?", "assistant": "A red box."},
            {"user": "Open it", "assistant": "No."},
        ]
        row = {"id": f"row-{index}", "source": "t", "kind": "benign", "strategy": None, "turns": turns[: 1 + index % 2]}
        rows.append(Dialogue.model_validate(row | {"images": [path] if index % 4 else []}))
    write_jsonl(root / "data" / "steer_sft.jsonl", rows)
    return root


@pytest.fixture(scope="session")
def config_for(world) -> Callable[..., SftConfig]:
    """`config_for(name, *overrides)`: 8 steps of 4 dialogues into the folder `name`."""

    def make(name: str, *overrides: str) -> SftConfig:
        places = [f"root={world}", f"output={world / name}"]
        return load_config(SftConfig, "configs/sft/miniature.yaml", [*SMALL, *places, *overrides])

    return make


@pytest.fixture(scope="session")
def untouched(config_for) -> SftConfig:
    """The config of a run that nobody disturbed, with a checkpoint of every step; its output is there."""
    from training.sft.run import main

    config = config_for("untouched", "training.save_every=1")
    assert main(config) == 0
    return config


@pytest.fixture(scope="session")
def weights() -> Callable:
    """`weights(folder)`: the tensors of a checkpoint or an adapter."""
    from safetensors.torch import load_file

    def load(folder: Path, name: str = "model.safetensors") -> dict:
        return load_file(folder / name)

    return load
