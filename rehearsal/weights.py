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
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from miniature.student import qwen_tokenizer, train_bpe
from safer_steer.cli import exit_code
from safer_steer.dialogue import stable_hash
from safer_steer.errors import UserError
from safer_steer.model_shape import Family, families, family_of
from safer_steer.picture_size import PROCESSOR_FILES
from safer_steer.store import write_atomic
from safer_steer.vlm import QWEN2_5_VL, QWEN3_VL, family_of_type
from safer_steer.vlm import Family as ModelFamily

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
MAX_TOKENS = 16384  # of a picture, in the hub's processors


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
    from transformers import AutoConfig

    ends = {name: family.token_ids[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return AutoConfig.for_model(
        family.model_type,
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
    if kinds := getattr(text, "layer_types", None):
        text.layer_types = kinds[:layers]
    for key in ("fullatt_block_indexes", "deepstack_visual_indexes"):  # blocks of a kind of their own
        if blocks := getattr(vision, key, None):
            setattr(vision, key, [index for index in blocks if index < layers] or [layers - 1])
    return config


def processor_from(folder: str, family: ModelFamily = QWEN2_5_VL) -> Any:
    """The processor in a folder or cached hub id; where only a tokenizer is there, with the family's picture side.

    Raises:
        UserError: there is neither.
    """
    from transformers import AutoProcessor, AutoTokenizer

    try:
        if Path(folder).is_dir() and not any((Path(folder) / name).is_file() for name in PROCESSOR_FILES):
            return with_pictures(AutoTokenizer.from_pretrained(folder), family)
        return AutoProcessor.from_pretrained(folder)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0][:200]
        raise UserError(
            f"no processor in {folder}: {first}; name a folder with the model's tokenizer.json and, where it is there, "
            "preprocessor_config.json: rehearse.processor=PATH"
        ) from error


def stand_in_processor(family: ModelFamily = QWEN2_5_VL) -> Any:
    """The local stand-in, made in a few seconds without any download."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("*/**/*.jinja"))]
    words, merges = train_bpe(texts, 8000)
    vocabulary = words | {f"\u0120w{number}": number for number in range(len(words), FIRST_SPECIAL)}  # " w12345"
    vocabulary |= {token: FIRST_SPECIAL + index for index, token in enumerate(SPECIALS)}
    return with_pictures(qwen_tokenizer(vocabulary, merges, SPECIALS, 131072), family)


def with_pictures(tokenizer: Any, family: ModelFamily) -> Any:
    """Tokenizer -> processor with the family's picture limits; a chat template that shows no pictures is replaced by
    the family's, as TRL has it.
    """
    import transformers

    lost = [token for token in family.tokens() if token not in tokenizer.get_vocab()]
    if lost:
        raise UserError(f"the tokenizer lacks {', '.join(lost)}; name one of the Qwen family: rehearse.processor=PATH")
    if family.picture not in (tokenizer.chat_template or ""):
        [trl] = find_spec("trl").submodule_search_locations or []
        named = Path(trl, "chat_templates", f"{family.model_types[0]}.jinja")
        tokenizer.chat_template = named.read_text(encoding="utf-8")
    pictures = transformers.Qwen2VLImageProcessor(
        size={"shortest_edge": family.min_pixels, "longest_edge": MAX_TOKENS * family.picture_unit**2},
        patch_size=family.picture_unit // 2,
        merge_size=2,
        temporal_patch_size=2,
    )
    videos = transformers.Qwen3VLVideoProcessor if family is QWEN3_VL else transformers.Qwen2VLVideoProcessor
    made = getattr(transformers, family.processors[0])
    return made(
        image_processor=pictures,
        tokenizer=tokenizer,
        video_processor=videos(),
        chat_template=tokenizer.chat_template,
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
    family = family_of_type(config.model_type) or QWEN2_5_VL
    made, said = _processor(source, processor, family)
    words = len(made.tokenizer)
    if words > config.text_config.vocab_size:
        raise UserError(
            f"{said} has {words} words, the architecture only {config.text_config.vocab_size}; name another"
        )
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(config, dtype=getattr(torch, dtype))
    stops = [made.tokenizer.convert_tokens_to_ids(token) for token in (family.turn_end, "<|endoftext|>")]
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


def _processor(source: str, named: str | None, family: ModelFamily) -> tuple[Any, str]:
    """The processor and what it is called in messages."""
    if named:
        return processor_from(named, family), f"processor of {named}"
    if (Path(source) / "config.json").is_file():
        return processor_from(source, family), f"processor of {source}"
    return stand_in_processor(family), "a local stand-in tokenizer (rehearse.processor=PATH names the real one)"


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
