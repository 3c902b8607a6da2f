"""Random weights and a processor at a real architecture, saved as a Hugging Face folder that every stage loads.

Input: a family (`safer_steer/model_families.yaml`) or a checkpoint whose config is read. Output: FOLDER with weights,
configs and processor; a folder that was made by the same request is kept. The processor is the checkpoint's own, that
of a folder the user names, or a local stand-in: a byte-level BPE trained on this repository's prompts and padded to the
vocabulary of the real tokenizer, with its special tokens at their real ids, so that sizes and costs are the real ones
and words per token are not.
    python -m rehearsal.weights qwen2_5_vl_3b FOLDER [--layers 2] [--dtype float32] [--processor PATH]
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

from miniature.student import CHAT_TEMPLATE, qwen_tokenizer, train_bpe
from safer_steer.cli import exit_code
from safer_steer.dialogue import stable_hash
from safer_steer.errors import UserError
from safer_steer.model_shape import Family, families, family_of
from safer_steer.store import write_atomic
from safer_steer.vlm import QWEN_VL

RECORD = "random_weights.json"
SHARD = "4GB"
ROOT = Path(__file__).resolve().parents[1]
FIRST_SPECIAL = 151643
# In the order of their ids, from FIRST_SPECIAL on; those behind are words of code and tools, which no stage uses.
SPECIALS = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>"),
    *("<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"),
    *("<|image_pad|>", "<|video_pad|>"),
)
GENERATION = {"do_sample": True, "repetition_penalty": 1.05, "temperature": 1e-6}  # what a rollout must not take over
MIN_PIXELS, MAX_PIXELS = 3136, 12845056  # of the hub's processor


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


def config_of(family: Family) -> Any:
    """The family's whole architecture as transformers' config."""
    from transformers import Qwen2_5_VLConfig

    ends = {name: family.token_ids[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return Qwen2_5_VLConfig(
        text_config=family.text | ends | {"tie_word_embeddings": family.tie_word_embeddings},
        vision_config=family.vision | {"out_hidden_size": family.text["hidden_size"]},
        tie_word_embeddings=family.tie_word_embeddings,
        **family.token_ids,
    )


def with_layers(config: Any, layers: int) -> Any:
    """The config with so many layers of text and of vision, all widths kept.

    Raises:
        UserError: more layers than the architecture has.
    """
    text, vision = config.text_config, config.vision_config
    most = min(text.num_hidden_layers, vision.depth)
    if layers > most:
        raise UserError(f"layers: {layers}, the architecture has {most} that text and vision share")
    text.num_hidden_layers = vision.depth = layers
    text.layer_types = text.layer_types[:layers]
    vision.fullatt_block_indexes = [i for i in vision.fullatt_block_indexes if i < layers] or [layers - 1]
    return config


def processor_from(folder: str) -> Any:
    """The processor in a folder or cached hub id; where only a tokenizer is there, with Qwen2.5-VL's picture side.

    Raises:
        UserError: there is neither.
    """
    from transformers import AutoProcessor, AutoTokenizer

    try:
        if Path(folder).is_dir() and not (Path(folder) / "preprocessor_config.json").is_file():
            return _with_pictures(AutoTokenizer.from_pretrained(folder))
        return AutoProcessor.from_pretrained(folder)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0][:200]
        raise UserError(
            f"no processor in {folder}: {first}; name a folder with the model's tokenizer.json and, where it is there, "
            "preprocessor_config.json: rehearse.processor=PATH"
        ) from error


def stand_in_processor() -> Any:
    """The local stand-in, made in a few seconds without any download."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("*/**/*.jinja"))]
    words, merges = train_bpe(texts, 8000)
    vocabulary = words | {f"\u0120w{number}": number for number in range(len(words), FIRST_SPECIAL)}  # " w12345"
    vocabulary |= {token: FIRST_SPECIAL + index for index, token in enumerate(SPECIALS)}
    return _with_pictures(qwen_tokenizer(vocabulary, merges, SPECIALS, 131072))


def _with_pictures(tokenizer: Any) -> Any:
    """Tokenizer -> processor with Qwen2.5-VL's picture limits; its chat template, where it shows no pictures, is
    replaced by one made here in the same layout.
    """
    from transformers import Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    lost = [token for token in ("<|im_end|>", "<|image_pad|>") if token not in tokenizer.get_vocab()]
    if lost:
        raise UserError(f"the tokenizer lacks {', '.join(lost)}; name one of the Qwen family: rehearse.processor=PATH")
    template = tokenizer.chat_template if "<|image_pad|>" in (tokenizer.chat_template or "") else CHAT_TEMPLATE
    tokenizer.chat_template = template
    pictures = Qwen2VLImageProcessor(min_pixels=MIN_PIXELS, max_pixels=MAX_PIXELS)
    return Qwen2_5_VLProcessor(
        image_processor=pictures, tokenizer=tokenizer, video_processor=Qwen2VLVideoProcessor(), chat_template=template
    )


def make(
    source: str,
    folder: Path,
    *,
    layers: int | None = None,
    dtype: str = "bfloat16",
    processor: str | None = None,
) -> dict[str, Any]:
    """Makes the folder; returns its record: parameters, layers, bytes, seconds, processor.

    Args:
        source: family or checkpoint that gives the architecture.
        folder: where it goes; replaced whole, unless the same request made it.
        layers: of text and of vision; None: the architecture's.
        dtype: bfloat16 or float32.
        processor: folder or cached hub id of the processor; None: that of `source` where it has one, else a local
            stand-in.
    """
    wanted = stable_hash(source, layers, dtype, processor)
    record_path = folder / RECORD
    if record_path.is_file():
        record = json.loads(record_path.read_text(encoding="utf-8"))
        if record["request"] == wanted:
            return record
    import torch
    from transformers import AutoModelForImageTextToText, GenerationConfig

    started = time.monotonic()
    config = architecture(source) if layers is None else with_layers(architecture(source), layers)
    made, said = _processor(source, processor)
    words = len(made.tokenizer)
    if words > config.text_config.vocab_size:
        raise UserError(
            f"{said} has {words} words, the architecture only {config.text_config.vocab_size}; name another"
        )
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(config, dtype=getattr(torch, dtype))
    stops = [made.tokenizer.convert_tokens_to_ids(token) for token in (QWEN_VL.turn_end, "<|endoftext|>")]
    if stops[1] == FIRST_SPECIAL:  # the real ids
        ends = {"bos_token_id": stops[1], "pad_token_id": stops[1], "eos_token_id": stops}
        model.generation_config = GenerationConfig(**GENERATION, **ends)
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
    parser.add_argument("--layers", type=int, help="of text and of vision; default: all")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--processor", help="folder with the tokenizer; default: the checkpoint's, else a stand-in")
    given = parser.parse_args(argv)

    def run() -> None:
        options = {"layers": given.layers, "dtype": given.dtype, "processor": given.processor}
        record = make(given.source, given.folder, **options)
        print(
            f"random weights: {record['parameters'] / 1e9:.2f} B parameters, {record['layers']} + "
            f"{record['vision_layers']} layers, {record['bytes'] / 1e9:.1f} GB, {record['seconds']} s, "
            f"{record['processor']}; {given.folder}"
        )

    return exit_code(run)


if __name__ == "__main__":
    sys.exit(main())
