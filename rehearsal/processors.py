"""The processor of random weights: the checkpoint's own, that of a folder the user names, or a local stand-in.

The stand-in is a byte-level BPE trained on this repository's prompts and padded to the vocabulary of the real
tokenizer, with its special tokens at their real ids: sizes and costs are the real ones, words per token are not.
"""

import json
from pathlib import Path
from typing import Any

from miniature.student import CHAT_TEMPLATE
from rehearsal.families import MAX_PIXELS, MIN_PIXELS, VISION
from safer_steer.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
FIRST_SPECIAL = 151643
# In the order of their ids, from FIRST_SPECIAL on; those behind are words of code and tools, which no stage uses.
SPECIALS = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>"),
    *("<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"),
    *("<|image_pad|>", "<|video_pad|>"),
)


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
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import Qwen2TokenizerFast

    texts = [path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("*/**/*.jinja"))]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=8000, initial_alphabet=alphabet, show_progress=False))
    model = json.loads(bpe.to_str())["model"]
    vocabulary = dict(model["vocab"])
    vocabulary |= {f"\u0120w{number}": number for number in range(len(vocabulary), FIRST_SPECIAL)}  # " w12345"
    vocabulary |= {token: FIRST_SPECIAL + index for index, token in enumerate(SPECIALS)}
    tokenizer = Qwen2TokenizerFast(
        vocab=vocabulary,
        merges=[tuple(merge) for merge in model["merges"]],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        additional_special_tokens=[token for token in SPECIALS if token not in ("<|im_end|>", "<|endoftext|>")],
        model_max_length=131072,
    )
    return _with_pictures(tokenizer)


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
    sizes = {name: VISION[name] for name in ("patch_size", "temporal_patch_size")}
    pictures = Qwen2VLImageProcessor(min_pixels=MIN_PIXELS, max_pixels=MAX_PIXELS, merge_size=2, **sizes)
    return Qwen2_5_VLProcessor(
        image_processor=pictures, tokenizer=tokenizer, video_processor=Qwen2VLVideoProcessor(), chat_template=template
    )
