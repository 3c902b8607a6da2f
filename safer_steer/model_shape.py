"""The sizes of a model that decide what fits and what divides: from a checkpoint's config.json, or by its name.

Command: python -m safer_steer.model_shape MODEL GPUS     ends with 2, and says why, when they cannot share the model
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

TABLE = Path(__file__).with_name("model_families.yaml")
VISION_PARAMETERS = 0.67e9  # the vision tower of every Qwen2.5-VL
SERVED_HEADS = {"Qwen3-VL-32B": 64}  # attention heads of models that are served only; source: its config.json


@dataclass(frozen=True)
class Shape:
    """The language part of a model."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    words: int  # of the vocabulary
    tied: bool  # one matrix for input and output embeddings

    @property
    def parameters(self) -> float:
        """Of the language part; small biases and norms left out."""
        kv = self.hidden // self.heads * self.kv_heads
        layer = 2 * self.hidden * self.hidden + 2 * self.hidden * kv + 3 * self.hidden * self.intermediate
        return self.layers * layer + self.words * self.hidden * (1 if self.tied else 2)


def shape_of(*names: str | None) -> Shape | None:
    """The shape of the first name that says one: a folder with config.json, or a family of `model_families.yaml`.

    None where no name does, and where a config.json is not of the usual form.
    """
    for name in filter(None, names):
        config = Path(name) / "config.json"
        if config.is_file():
            return _from_config(json.loads(config.read_text(encoding="utf-8")))
        for key, item in yaml.safe_load(TABLE.read_text(encoding="utf-8")).items():
            if any(part.lower() in name.lower() for part in (*item["names"], key)):
                return _from_config(item["text"] | {"tie_word_embeddings": item["tie_word_embeddings"]})
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


def _from_config(config: dict[str, Any]) -> Shape | None:
    text = config | (config.get("text_config") or {})
    try:
        return Shape(
            layers=text["num_hidden_layers"],
            hidden=text["hidden_size"],
            intermediate=text["intermediate_size"],
            heads=text["num_attention_heads"],
            kv_heads=text.get("num_key_value_heads") or text["num_attention_heads"],
            words=text["vocab_size"],
            tied=bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", True))),
        )
    except KeyError:
        return None


if __name__ == "__main__":
    if problem := split_problem(int(sys.argv[2]), sys.argv[1]):
        print(f"error: {sys.argv[1]}: {problem}", file=sys.stderr)
        sys.exit(2)
