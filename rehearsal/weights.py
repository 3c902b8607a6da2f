"""Random weights at a real architecture, saved as a Hugging Face folder that every stage loads.

Input: a family (`safer_steer/model_families.yaml`) or a checkpoint whose config is read. Output: FOLDER with weights,
configs and processor; a folder that was made by the same request is kept.
    python -m rehearsal.weights qwen2_5_vl_3b FOLDER [--layers 36] [--vision-layers 32] [--dtype bfloat16]
        [--processor PATH]
"""

if __name__ == "__main__":  # before the imports below, which take seconds
    from safer_steer import interrupts

    interrupts.watch()

import argparse
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from rehearsal.families import GENERATION, TOKEN_IDS, config_of, with_layers
from rehearsal.processors import processor_from, stand_in_processor
from safer_steer.cli import exit_code
from safer_steer.dialogue import stable_hash
from safer_steer.errors import UserError
from safer_steer.model_shape import families, family_of
from safer_steer.store import write_atomic
from safer_steer.vlm import QWEN_VL

RECORD = "random_weights.json"
SHARD = "4GB"


def architecture(source: str) -> Any:
    """The config of a family, or of a checkpoint (folder, or hub id that is cached or can be reached).

    Raises:
        UserError: neither is known.
    """
    from transformers import AutoConfig

    if (Path(source) / "config.json").is_file():
        return AutoConfig.from_pretrained(source)
    if family := families().get(source) or family_of(source):
        return config_of(family)
    raise UserError(f"{source}: no checkpoint with a config.json, and no known family; known: {', '.join(families())}")


def make(
    source: str,
    folder: Path,
    *,
    layers: int | None = None,
    vision_layers: int | None = None,
    dtype: str = "bfloat16",
    processor: str | None = None,
) -> dict[str, Any]:
    """Makes the folder; returns its record: parameters, layers, bytes, seconds, processor.

    Args:
        source: family or checkpoint that gives the architecture.
        folder: where it goes; replaced whole, unless the same request made it.
        layers: text layers; None: the architecture's.
        vision_layers: layers of the vision tower; None: the architecture's.
        dtype: bfloat16 or float32.
        processor: folder or cached hub id of the processor; None: that of `source` where it has one, else a local
            stand-in.
    """
    wanted = stable_hash(source, layers, vision_layers, dtype, processor)
    record_path = folder / RECORD
    if record_path.is_file():
        record = json.loads(record_path.read_text(encoding="utf-8"))
        if record["request"] == wanted:
            return record
    import torch
    from transformers import AutoModelForImageTextToText, GenerationConfig

    started = time.monotonic()
    config = with_layers(architecture(source), layers, vision_layers)
    made, said = _processor(source, processor)
    words = len(made.tokenizer)
    if words > config.text_config.vocab_size:
        raise UserError(
            f"{said} has {words} words, the architecture only {config.text_config.vocab_size}; name another"
        )
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(config, dtype=getattr(torch, dtype))
    ends = {name: TOKEN_IDS[name] for name in ("bos_token_id", "pad_token_id")}
    stops = [made.tokenizer.convert_tokens_to_ids(token) for token in (QWEN_VL.turn_end, "<|endoftext|>")]
    if stops[0] == TOKEN_IDS["eos_token_id"]:
        model.generation_config = GenerationConfig(**GENERATION, **ends, eos_token_id=stops)
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder, max_shard_size=SHARD)
    made.save_pretrained(folder)
    record = {
        "request": wanted,
        "source": source,
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "layers": config.text_config.num_hidden_layers,
        "vision_layers": config.vision_config.depth,
        "dtype": dtype,
        "processor": said,
        "bytes": sum(path.stat().st_size for path in folder.glob("*.safetensors")),
        "seconds": round(time.monotonic() - started, 1),
    }
    write_atomic(record_path, json.dumps(record, indent=1) + "\n")
    return record


def _processor(source: str, named: str | None) -> tuple[Any, str]:
    """The processor and what it is called in messages."""
    if named:
        return processor_from(named), f"processor of {named}"
    if (Path(source) / "config.json").is_file():
        return processor_from(source), f"processor of {source}"
    return stand_in_processor(), "a local stand-in tokenizer (rehearse.processor=PATH names the real one)"


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help=f"one of {', '.join(families())}, or a checkpoint folder")
    parser.add_argument("folder", type=Path, help="folder to write")
    parser.add_argument("--layers", type=int, help="text layers; default: all")
    parser.add_argument("--vision-layers", type=int, help="layers of the vision tower; default: all")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--processor", help="folder with the tokenizer; default: the checkpoint's, else a stand-in")
    given = parser.parse_args(argv)

    def run() -> None:
        options = {"layers": given.layers, "vision_layers": given.vision_layers}
        record = make(given.source, given.folder, dtype=given.dtype, processor=given.processor, **options)
        print(
            f"random weights: {record['parameters'] / 1e9:.2f} B parameters, {record['layers']} + "
            f"{record['vision_layers']} layers, {record['bytes'] / 1e9:.1f} GB, {record['seconds']} s, "
            f"{record['processor']}; {given.folder}"
        )

    return exit_code(run)


if __name__ == "__main__":
    sys.exit(main())
