"""Checkpoint -> processor and model to train: precision, frozen parts, LoRA adapters."""

from typing import Any

import torch
from peft import LoraConfig
from transformers import AutoModelForImageTextToText, AutoProcessor

from safer_steer.errors import UserError
from safer_steer.picture_size import PictureSize
from safer_steer.vlm import FAMILIES, family_of_type
from training.sft.config import FreezeConfig, ImageConfig, SftConfig

KNOWN = " or ".join(family.name for family in FAMILIES)


def load_processor(config: SftConfig) -> Any:
    """The checkpoint's processor with the configured picture limit.

    Raises:
        UserError: it cannot be loaded, has no chat template, or is of no known family.
    """
    try:
        processor = AutoProcessor.from_pretrained(config.model)
    except (OSError, ValueError) as error:
        raise UserError(f"no processor in {config.model}: {error}; it needs tokenizer and processor files") from error
    if not hasattr(processor, "image_processor") or not processor.chat_template:
        raise UserError(f"{config.model} has no image processor or no chat template; use a checkpoint of {KNOWN}")
    limit_pictures(processor, config.images)
    return processor


def limit_pictures(processor: Any, images: ImageConfig) -> PictureSize:
    """Gives a processor the run's picture limit, which the exported checkpoint then has too; returns the sizes."""
    size = PictureSize.of(processor, images.max_pixels)
    if "longest_edge" in dict(processor.image_processor.size):
        processor.image_processor.size = {"shortest_edge": size.min_pixels, "longest_edge": size.max_pixels}
    return size


def load_model(config: SftConfig, folder: str) -> Any:
    """The model of a folder or hub name in the precision to train in, with the frozen parts frozen.

    Raises:
        UserError: it cannot be loaded, or lacks a part that is to be frozen.
    """
    # Mixed precision keeps trained weights in fp32. DeepSpeed keeps its own fp32 copy of bf16 weights, and under LoRA
    # the model's weights are not trained: both need half the memory.
    half = config.training.precision == "bf16" and (config.training.deepspeed or config.lora)
    try:
        dtype = torch.bfloat16 if half else torch.float32
        model = AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype)
    except (OSError, ValueError) as error:
        raise UserError(f"model {folder} cannot be loaded: {error}; check the folder or the name") from error
    freeze(model, config.freeze)
    return model


def freeze(model: Any, parts: FreezeConfig) -> None:
    """Switches off gradients of the vision tower and of the projector (its mergers), each by its own flag."""
    family = family_of_type(model.config.model_type)
    if (parts.vision_tower or parts.projector) and family is None:
        raise UserError(
            f"{type(model).__name__} has no vision tower with a projector of a known family, {KNOWN}, to freeze; set "
            "freeze.* to false, or add an entry to safer_steer/vlm.py"
        )
    if family is not None:
        tower, projectors = family.vision_parts(model)
        projector_parameters = {id(parameter) for part in projectors for parameter in part.parameters()}
        for parameter in (parameter for part in (tower, *projectors) for parameter in part.parameters()):
            frozen = parts.projector if id(parameter) in projector_parameters else parts.vision_tower
            parameter.requires_grad_(not frozen)


def lora_config(config: SftConfig, model: Any) -> LoraConfig | None:
    """PEFT's config: every linear layer whose weights are not frozen, without the output head; None without LoRA."""
    if config.lora is None:
        return None
    head = model.get_output_embeddings()
    targets = [
        name
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.Linear) and layer is not head and layer.weight.requires_grad
    ]
    return LoraConfig(
        r=config.lora.rank,
        lora_alpha=config.lora.alpha,
        lora_dropout=config.lora.dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
