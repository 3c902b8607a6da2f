"""From verl's checkpoint to a plain Hugging Face folder that vLLM serves: a copy, or with LoRA the merged weights.

verl writes `actor/huggingface/` with the model's own keys, in fp32 whatever its config.json says; exports have the
config's precision. With LoRA its keys are PEFT's (`base_layer`, `lora_A`, `lora_B`), which nothing loads, and the scale
stands in `actor/lora_train_meta.json`.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from safer_steer.answer_format import PLAIN, AnswerFormat
from safer_steer.errors import UserError
from safer_steer.picture_size import write_limit

ACTOR = "actor"  # within verl's global_step_N
ADAPTER = ".lora_A.default.weight"  # how PEFT's names of an adapted layer end


def has_weights(checkpoint: Path) -> bool:
    """Whether verl's folder of a step holds a Hugging Face folder with weights."""
    return any((checkpoint / ACTOR / "huggingface").glob("*.safetensors"))


def export_weights(checkpoint: Path, target: Path, max_pixels: int, answers: AnswerFormat = PLAIN) -> None:
    """Writes the weights of a step to `target`, whole or not at all; what was there is replaced.

    Args:
        checkpoint: verl's folder global_step_N.
        target: the Hugging Face folder to write.
        max_pixels: picture size of the training; the exported processor has it as its limit.
        answers: the format of the training; the folder says it.

    Raises:
        UserError: the checkpoint has no weights in Hugging Face form.
    """
    source, lora = checkpoint / ACTOR / "huggingface", checkpoint / ACTOR / "lora_train_meta.json"
    if not has_weights(checkpoint):
        raise UserError(
            f"{source} holds no weights; keep hf_model in actor_rollout_ref.actor.checkpoint.save_contents, then resume"
        )
    temporary = target.with_name(f".{target.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    if lora.is_file():
        meta = json.loads(lora.read_text(encoding="utf-8"))
        _write_merged(source, temporary, meta["r"], meta["lora_alpha"])
    else:
        shutil.copytree(source, temporary, ignore=shutil.ignore_patterns("*.safetensors*"))
        _write_weights(source, temporary)
    write_limit(temporary, max_pixels)
    answers.write(temporary)
    shutil.rmtree(target, ignore_errors=True)
    temporary.replace(target)


def precision(folder: Path) -> Any:
    """The torch precision that a Hugging Face folder's config names; None where it names none."""
    import torch

    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    name = config.get("dtype") or config.get("torch_dtype")
    return getattr(torch, str(name).removeprefix("torch."), None) if name else None


def _write_weights(source: Path, target: Path) -> None:
    """Writes the weight files in the config's precision, one after another: no more than one is in memory."""
    wanted, total = precision(source), 0
    for shard in sorted(source.glob("*.safetensors")):
        total += _write_shard(shard, target / shard.name, wanted)
    index = source / "model.safetensors.index.json"
    if index.is_file():
        content = json.loads(index.read_text(encoding="utf-8"))
        content["metadata"] = content.get("metadata", {}) | {"total_size": total}
        (target / index.name).write_text(json.dumps(content, indent=2), encoding="utf-8")


def _write_shard(source: Path, target: Path, wanted: Any) -> int:
    """Writes one file of weights; returns the bytes of its tensors."""
    if wanted is None:
        return Path(shutil.copyfile(source, target)).stat().st_size
    from safetensors.torch import load_file, save_file

    weights = {
        name: tensor.to(wanted) if tensor.is_floating_point() else tensor for name, tensor in load_file(source).items()
    }
    save_file(weights, target, metadata={"format": "pt"})
    return sum(tensor.numel() * tensor.element_size() for tensor in weights.values())


def _write_merged(source: Path, target: Path, rank: int, alpha: float) -> None:
    """Writes the model of a PEFT checkpoint with every adapter merged into its layer, in the config's precision."""
    import torch
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoModelForImageTextToText

    weights: dict[str, Any] = {}
    for shard in sorted(source.glob("*.safetensors")):
        weights |= load_file(shard)
    adapters = [name.removesuffix(ADAPTER) for name in weights if name.endswith(ADAPTER)]
    layers = [name.removeprefix("base_model.model.") for name in adapters]
    model = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(source), dtype=torch.float32)
    adapted = get_peft_model(model, LoraConfig(r=rank, lora_alpha=alpha, target_modules=layers))
    lost = set(adapted.load_state_dict(weights, strict=False).missing_keys)
    lost -= {f"base_model.model.{name}" for name in getattr(model, "_tied_weights_keys", None) or ()}  # saved once
    if lost:
        raise UserError(f"{source} lacks {len(lost)} tensors of the model, such as {sorted(lost)[0]}; it is not whole")
    keep_out = shutil.ignore_patterns("*.safetensors", "*.safetensors.index.json")
    shutil.copytree(source, target, ignore=keep_out)
    adapted.merge_and_unload().to(precision(source) or torch.float32).save_pretrained(target)
