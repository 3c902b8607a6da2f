"""A family of `safer_steer/model_families.yaml` -> transformers' config of it, and the layers to keep of a config."""

from typing import Any

from safer_steer.errors import UserError
from safer_steer.model_shape import Family

# The same in every Qwen2.5-VL: special ids, rotary embedding, vision tower, picture limits of the hub's processor.
TOKEN_IDS = {
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "pad_token_id": 151643,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
    "image_token_id": 151655,
    "video_token_id": 151656,
}
TEXT = {
    "max_position_embeddings": 128000,
    "rms_norm_eps": 1e-6,
    "use_sliding_window": False,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
}
VISION = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "in_channels": 3,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "spatial_patch_size": 14,
    "temporal_patch_size": 2,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
    "tokens_per_second": 2,
}
GENERATION = {"do_sample": True, "repetition_penalty": 1.05, "temperature": 1e-6}  # what a rollout must not take over
MIN_PIXELS, MAX_PIXELS = 3136, 12845056


def config_of(family: Family) -> Any:
    """The family's whole architecture as transformers' config."""
    from transformers import Qwen2_5_VLConfig

    ends = {name: TOKEN_IDS[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return Qwen2_5_VLConfig(
        text_config=TEXT | family.text | ends | {"tie_word_embeddings": family.tie_word_embeddings},
        vision_config=VISION | {"out_hidden_size": family.text["hidden_size"]},
        tie_word_embeddings=family.tie_word_embeddings,
        **TOKEN_IDS,
    )


def with_layers(config: Any, text: int | None, vision: int | None) -> Any:
    """The config with fewer layers, all widths kept; None keeps a part's own number.

    Raises:
        UserError: more layers than the architecture has, or fewer than one.
    """
    for part, wanted, key in ((config.text_config, text, "num_hidden_layers"), (config.vision_config, vision, "depth")):
        most = getattr(part, key)
        if wanted is not None and not 1 <= wanted <= most:
            raise UserError(f"layers: {wanted} is not between 1 and {most}, the architecture's {key}")
    if text is not None:
        config.text_config.num_hidden_layers = text
        config.text_config.layer_types = config.text_config.layer_types[:text]
    if vision is not None:
        config.vision_config.depth = vision
        blocks = [index for index in config.vision_config.fullatt_block_indexes if index < vision]
        config.vision_config.fullatt_block_indexes = blocks or [vision - 1]
    return config
