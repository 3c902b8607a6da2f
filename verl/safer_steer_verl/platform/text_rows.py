"""A fix of verl 0.9.1 with transformers 5: a micro-batch of Qwen2-VL or Qwen2.5-VL without any picture.

verl then sends an empty picture through the vision tower, so that every rank takes part in FSDP's gathers, and adds
nothing of it to the embeddings; but it takes the tower's answer for a tensor, which it no longer is.
"""

import torch
from verl.models.transformers import qwen2_vl
from verl.utils.transformers_compat import unpack_visual_output

PATCHES = (1, 4, 4)  # time, height, width of the empty picture


def install() -> None:
    """Puts the fix where verl looks for its own."""
    inputs_embeds = qwen2_vl._get_input_embeds

    def fixed(model, input_ids, attention_mask=None, pixel_values=None, pixel_values_videos=None, *grids, **named):
        if pixel_values is not None or pixel_values_videos is not None:
            return inputs_embeds(model, input_ids, attention_mask, pixel_values, pixel_values_videos, *grids, **named)
        embeds = model.get_input_embeddings()(input_ids)
        return embeds + 0.0 * _empty_picture(model, embeds).mean(), attention_mask

    qwen2_vl._get_input_embeds = fixed


def _empty_picture(model, embeds: torch.Tensor) -> torch.Tensor:
    """The vision tower's features of an empty picture, of the embeddings' type."""
    vision = model.config.vision_config
    width = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    patches = embeds.new_zeros((PATCHES[0] * PATCHES[1] * PATCHES[2], width))
    features, _ = unpack_visual_output(model.visual(patches, grid_thw=torch.tensor([PATCHES], device=embeds.device)))
    return features
