"""The sizes of a model that decide what fits and what divides: from a checkpoint's files, or by its name.

Command: python -m safer_steer.model_shape MODEL GPUS     ends with 2, and says why, when they cannot share the model
"""

import json
import math
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

VISION_PARAMETERS = 0.67e9  # the vision tower of every Qwen2.5-VL; those of Qwen3-VL are smaller
SERVED_HEADS = {"Qwen3-VL-32B": 64}  # attention heads of models that are served only; source: its config.json


@dataclass(frozen=True)
class Family:
    """An architecture of `model_families.yaml`.

    Attributes:
        name: its name there; a path or hub id that holds it, however it writes dots and lines, is of this family.
        model_type: of its config in transformers.
        tie_word_embeddings: whether one matrix is input and output embeddings.
        parameters: of the whole model; tied embeddings count once.
        text: the language part of its config.json.
        vision: the vision part.
        token_ids: ids of its special tokens, by their names there.
    """

    name: str
    model_type: str
    tie_word_embeddings: bool
    parameters: int
    text: dict[str, Any]
    vision: dict[str, Any]
    token_ids: dict[str, int]


@dataclass(frozen=True)
class Shape:
    """The language part of a model."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head: int  # width of one
    words: int  # of the vocabulary
    tied: bool  # one matrix for input and output embeddings

    @property
    def parameters(self) -> float:
        """Of the language part; small biases and norms left out."""
        attention = 2 * self.hidden * self.head * (self.heads + self.kv_heads)
        layer = attention + 3 * self.hidden * self.intermediate
        return self.layers * layer + self.words * self.hidden * (1 if self.tied else 2)


@cache
def families() -> dict[str, Family]:
    """Name -> family."""
    table = yaml.safe_load(Path(__file__).with_name("model_families.yaml").read_text(encoding="utf-8"))
    return {name: Family(name, **item) for name, item in table.items()}


def family_of(*names: str | None) -> Family | None:
    """The family that the first of the names (paths, hub ids) says, None when none does."""
    for name in filter(None, names):
        for key, family in families().items():
            if _plain(key) in _plain(name):
                return family
    return None


def _plain(name: str) -> str:
    return re.sub("[-_.]", "", name).lower()


def parameters(*checkpoints: str | None) -> int | None:
    """Parameters of the first checkpoint (folder, or hub id) of which they are known; None when of none."""
    for checkpoint in filter(None, checkpoints):
        if files := sorted(Path(checkpoint).glob("*.safetensors")):
            return sum(elements for file in files for _, elements in tensors(file))
        if family := family_of(checkpoint):
            return family.parameters
    return None


def tied(*checkpoints: str | None) -> bool:
    """Whether input and output embeddings are one tensor, by the first checkpoint of which that is known."""
    for checkpoint in filter(None, checkpoints):
        if config := _config(checkpoint):
            return bool(config.get("tie_word_embeddings", False))
        if family := family_of(checkpoint):
            return family.tie_word_embeddings
    return False


def shape_of(*names: str | None) -> Shape | None:
    """The shape of the first name that says one: a folder with config.json, or a family.

    None where no name does, and where a config.json is not of the usual form.
    """
    for name in filter(None, names):
        if config := _config(name):
            return _from_config(config)
        if family := family_of(name):
            return _from_config(family.text | {"tie_word_embeddings": family.tie_word_embeddings})
    return None


def split_problem(tensor_parallel: int, *names: str | None) -> str | None:
    """A sentence when the attention heads of the model do not divide among so many GPUs; None too for an unknown model.

    Args:
        tensor_parallel: GPUs that share one copy.
        names: see `shape_of`.
    """
    shape = shape_of(*names)
    served = [heads for part, heads in SERVED_HEADS.items() if any(part in name for name in names if name)]
    heads = shape.heads if shape else next(iter(served), tensor_parallel)
    if heads % tensor_parallel == 0:
        return None
    fitting = ", ".join(str(number) for number in range(1, 17) if heads % number == 0)
    return f"{tensor_parallel} GPUs cannot share the model's {heads} attention heads equally; allowed: {fitting}"


def tensors(file: Path) -> Iterator[tuple[str, int]]:
    """Name and number of elements of every tensor in a safetensors file; nothing of a file that is none."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as weights:
            for name in weights.keys():  # noqa: SIM118 - it is no dict
                yield name, math.prod(weights.get_slice(name).get_shape())
    except SafetensorError:
        return


def _config(checkpoint: str) -> dict[str, Any] | None:
    file = Path(checkpoint) / "config.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def _from_config(config: dict[str, Any]) -> Shape | None:
    text = config | (config.get("text_config") or {})
    try:
        return Shape(
            layers=text["num_hidden_layers"],
            hidden=text["hidden_size"],
            intermediate=text["intermediate_size"],
            heads=text["num_attention_heads"],
            kv_heads=text.get("num_key_value_heads") or text["num_attention_heads"],
            head=text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"],
            words=text["vocab_size"],
            tied=bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", True))),
        )
    except KeyError:
        return None


if __name__ == "__main__":
    if problem := split_problem(int(sys.argv[2]), sys.argv[1]):
        print(f"error: {sys.argv[1]}: {problem}", file=sys.stderr)
        sys.exit(2)
