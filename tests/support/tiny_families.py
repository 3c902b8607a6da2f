"""Tiny random models of the families of `safer_steer/vlm.py`, with their released picture sides and, from TRL, their
published chat templates.
"""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from miniature.student import build_tokenizer
from rehearsal.weights import config_of, with_layers, with_pictures
from safer_steer.model_shape import families
from safer_steer.vlm import GEMMA3, QWEN2_5_VL, QWEN3_VL, Family

QWEN = (QWEN2_5_VL, QWEN3_VL)
TEMPLATES = Path(next(iter(find_spec("trl").submodule_search_locations)), "chat_templates")
# The real vocabulary, in ../shared beside the checkout or beside a folder above it; None where it is not there.
REAL_TOKENIZER = next(
    (
        folder
        for parent in Path(__file__).resolve().parents
        if (folder := parent / "shared" / "data" / "qwen3_tokenizer").is_dir()
    ),
    None,
)
NEEDS_REAL_TOKENIZER = pytest.mark.skipif(REAL_TOKENIZER is None, reason="no ../shared/data/qwen3_tokenizer")


def processor_of(family: Family, tokenizer: Any = None, min_pixels: int | None = None) -> Any:
    """The family's processor with the miniature's words or a given tokenizer; `min_pixels` in place of its own."""
    tokenizer = tokenizer or build_tokenizer()
    tokenizer.chat_template = None  # the miniature's own is not the published one
    made = with_pictures(tokenizer, family)
    if min_pixels:
        made.image_processor.size = dict(made.image_processor.size) | {"shortest_edge": min_pixels}
    return made


def config_of_type(model_type: str, layers: int = 2) -> Any:
    """The smallest released architecture of a family with fewer layers."""
    name = next(name for name, known in families().items() if known.model_type == model_type)
    return with_layers(config_of(families()[name]), layers)


def narrow(config: Any) -> None:
    """Makes an architecture 64 wide, with heads as wide as vLLM wants them at least."""
    text, vision = config.text_config, config.vision_config
    text.hidden_size, text.intermediate_size, text.num_attention_heads, text.num_key_value_heads = 64, 96, 2, 1
    if hasattr(text, "head_dim"):
        text.head_dim = 32
    text.rope_parameters["mrope_section"] = [6, 5, 5]
    vision.hidden_size, vision.intermediate_size, vision.num_heads, vision.out_hidden_size = 32, 48, 2, 64


def model_of(family: Family, tokenizer: Any, layers: int = 2) -> Any:
    """A random model for the tokenizer, in fp32, that no two matrices of share weights; set torch's seed before."""
    from transformers import AutoModelForImageTextToText

    config = config_of_type(family.model_types[0], layers)
    narrow(config)
    token = tokenizer.convert_tokens_to_ids
    ends = {"bos_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    ends["pad_token_id"] = tokenizer.pad_token_id
    for part in (config, config.text_config):
        part.update(ends | {"tie_word_embeddings": False})
    config.text_config.vocab_size = len(tokenizer)  # no padded rows: vLLM would leave them out of its softmax
    config.image_token_id, config.video_token_id = token(family.picture), token("<|video_pad|>")
    config.vision_start_token_id, config.vision_end_token_id = token(family.picture_start), token(family.picture_end)
    return AutoModelForImageTextToText.from_config(config).float()


def gemma3_tokenizer() -> Any:
    """Gemma's own tokenizer class over a few words of this repository's prompts."""
    from transformers import GemmaTokenizer

    specials = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *GEMMA3.tokens()]
    texts = [path.read_text(encoding="utf-8") for path in sorted(Path("data_construction/prompts").glob("*.jinja"))]
    bpe = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    bpe.normalizer = normalizers.Replace(" ", "\u2581")
    bpe.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    every = [*specials, *(f"<0x{byte:02X}>" for byte in range(256))]
    bpe.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=900, special_tokens=every, show_progress=False))
    model = json.loads(bpe.to_str())["model"]
    return GemmaTokenizer(
        vocab=model["vocab"],
        merges=[tuple(merge) for merge in model["merges"]],
        extra_special_tokens={
            "image_token": GEMMA3.picture,
            "boi_token": GEMMA3.picture_start,
            "eoi_token": GEMMA3.picture_end,
            "start_of_turn": GEMMA3.turn_start,
            "end_of_turn": GEMMA3.turn_end,
        },
        padding_side="right",
    )


def gemma3_processor(side: int = 896, tokens: int = 256) -> Any:
    """Gemma 3's processor with few words; a picture becomes a square of `side` px and so many tokens."""
    from transformers import Gemma3ImageProcessor, Gemma3Processor

    return Gemma3Processor(
        Gemma3ImageProcessor(size={"height": side, "width": side}, do_pan_and_scan=False),
        gemma3_tokenizer(),
        chat_template=(TEMPLATES / "gemma3.jinja").read_text(encoding="utf-8"),
        image_seq_length=tokens,
    )


def gemma3_model(processor: Any) -> Any:
    """A random Gemma 3, 64 wide, for a processor of 56 px and 4 tokens."""
    from transformers import AutoModelForImageTextToText, Gemma3Config

    tokenizer = processor.tokenizer
    start, picture, end = tokenizer.convert_tokens_to_ids([GEMMA3.picture_start, GEMMA3.picture, GEMMA3.picture_end])
    text = {"vocab_size": len(tokenizer), "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    text |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "sliding_window": 32}
    vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision |= {"image_size": 56, "patch_size": 14}
    ids = {"boi_token_index": start, "image_token_index": picture, "eoi_token_index": end}
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4, **ids)
    return AutoModelForImageTextToText.from_config(config).float()
