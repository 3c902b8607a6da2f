"""The tiny student: a real Qwen2.5-VL of about 1.1 M parameters with its own tokenizer, processor and Qwen2.5-VL's
chat template.
"""

import json
import random
from collections.abc import Iterable, Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2TokenizerFast,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from miniature.language import ANSWERS, INTENTS, LIFT, REFUSAL, STEPS, THIN_REFUSAL
from miniature.world import COLOURS, SHAPES, SIZE

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
MAX_LENGTH = 1024  # tokens
# The layout of Qwen2.5-VL's template: a default system turn, pictures as vision blocks, "\n" after every turn's end.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] in ('image', 'image_url') %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build_tokenizer() -> Qwen2TokenizerFast:
    """A byte-level BPE trained on the miniature's training phrasings; its special tokens are Qwen2.5-VL's."""
    rng = random.Random(0)
    asks = [text for by_split in INTENTS.values() for text in by_split["train"]]
    sentences = [
        *ANSWERS["look"],
        *(text for name, text in ANSWERS.items() if name != "look"),
        REFUSAL,
        THIN_REFUSAL,
        STEPS,
        LIFT,
    ]
    corpus = ["system user assistant", "You are a helpful assistant."] * 200 + asks * 50
    corpus += [rng.choice(sentences).format(colour=c, shape=s) for c in COLOURS for s in SHAPES for _ in range(60)]
    words, merges = train_bpe(corpus, 760)
    vocabulary = words | {token: len(words) + index for index, token in enumerate(SPECIAL_TOKENS)}
    tokenizer = qwen_tokenizer(vocabulary, merges, SPECIAL_TOKENS, MAX_LENGTH)
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def train_bpe(texts: Iterable[str], size: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of a byte-level BPE of at most `size` words, trained on the texts."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False))
    model = json.loads(bpe.to_str())["model"]
    return model["vocab"], [tuple(merge) for merge in model["merges"]]


def qwen_tokenizer(
    vocabulary: dict[str, int], merges: list[tuple[str, str]], specials: Sequence[str], longest: int
) -> Qwen2TokenizerFast:
    """Qwen2's tokenizer over a vocabulary that holds the special tokens; `longest` in tokens."""
    return Qwen2TokenizerFast(
        vocab=vocabulary,
        merges=merges,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        additional_special_tokens=[token for token in specials if token not in ("<|im_end|>", "<|endoftext|>")],
        model_max_length=longest,
    )


def build_processor() -> Qwen2_5_VLProcessor:
    """Tokenizer and picture processor; a 56 x 56 picture becomes 4 picture tokens."""
    tokenizer = build_tokenizer()
    images = Qwen2VLImageProcessor(
        min_pixels=28 * 28, max_pixels=SIZE * SIZE, patch_size=14, merge_size=2, temporal_patch_size=2
    )
    return Qwen2_5_VLProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=CHAT_TEMPLATE,
    )


def build_model(
    tokenizer: Qwen2TokenizerFast, hidden_size: int = 128, layers: int = 4
) -> Qwen2_5_VLForConditionalGeneration:
    """A randomly initialised Qwen2.5-VL in float32; set torch's seed before for the same weights."""
    token = {name: tokenizer.convert_tokens_to_ids(name) for name in SPECIAL_TOKENS}
    ends = {
        "bos_token_id": token["<|endoftext|>"],
        "eos_token_id": token["<|im_end|>"],
        "pad_token_id": token["<|endoftext|>"],
    }
    section = hidden_size // 32
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),  # no padded rows: vLLM would leave them out of its softmax
            "hidden_size": hidden_size,
            "intermediate_size": 3 * hidden_size,
            "num_hidden_layers": layers,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": MAX_LENGTH,
            "tie_word_embeddings": False,
            "use_sliding_window": False,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [section, section * 3 // 2, section * 3 // 2],
            },
            **ends,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 4,
            "in_channels": 3,
            "out_hidden_size": hidden_size,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "spatial_patch_size": 14,
            "temporal_patch_size": 2,
            "window_size": 112,
            "fullatt_block_indexes": [0, 1],
            "tokens_per_second": 2,
        },
        image_token_id=token["<|image_pad|>"],
        video_token_id=token["<|video_pad|>"],
        vision_start_token_id=token["<|vision_start|>"],
        vision_end_token_id=token["<|vision_end|>"],
        tie_word_embeddings=False,
        **ends,
    )
    model = Qwen2_5_VLForConditionalGeneration(config).float()
    stops = [ends["eos_token_id"], ends["pad_token_id"]]
    model.generation_config = GenerationConfig(**(ends | {"eos_token_id": stops}), do_sample=True)
    return model
