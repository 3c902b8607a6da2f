"""How many parameters a checkpoint has, read from its files' headers or known by name: what disk and memory follow."""

import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path

# Of the paper's models, where only a name is at hand: parameters (tied embeddings count once), embeddings tied.
KNOWN = {"Qwen2.5-VL-3B": (3_754_622_976, True), "Qwen2.5-VL-7B": (8_292_166_656, False)}
LARGEST_HEADER = 100 * 2**20


def parameters(*checkpoints: str | None) -> int | None:
    """Parameters of the first checkpoint (folder, or hub id) of which they are known; None when of none."""
    for checkpoint in filter(None, checkpoints):
        files = sorted(Path(checkpoint).glob("*.safetensors")) if Path(checkpoint).is_dir() else []
        if files:
            return sum(elements for file in files for _, elements in tensors(file))
        if known := _known(checkpoint):
            return known[0]
    return None


def tied(*checkpoints: str | None) -> bool:
    """Whether input and output embeddings are one tensor, by the first checkpoint of which that is known."""
    for checkpoint in filter(None, checkpoints):
        config = Path(checkpoint) / "config.json"
        if config.is_file():
            return bool(json.loads(config.read_text(encoding="utf-8")).get("tie_word_embeddings", False))
        if known := _known(checkpoint):
            return known[1]
    return False


def _known(checkpoint: str) -> tuple[int, bool] | None:
    """A model of the paper, by its name anywhere in a path or hub id."""
    plain = checkpoint.lower().replace("_", "").replace("-", "").replace(".", "")
    return next((item for name, item in KNOWN.items() if re.sub("[-.]", "", name).lower() in plain), None)


def tensors(file: Path) -> Iterator[tuple[str, int]]:
    """Name and number of elements of every tensor in a safetensors file; nothing of a file that is none."""
    with file.open("rb") as stream:
        head = stream.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else LARGEST_HEADER
        try:
            header = json.loads(stream.read(length)) if length < LARGEST_HEADER else {}
        except ValueError:
            header = {}
    for name, item in header.items():
        if name != "__metadata__":
            elements = 1
            for side in item["shape"]:
                elements *= side
            yield name, elements
