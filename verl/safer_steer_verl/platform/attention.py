"""Which attention GRPO's trainer uses: one setting, `safer_steer.attention`, becomes verl's keys. Imports no engine.

| path | kernels | rows | needs |
|---|---|---|---|
| `padded` | torch's sdpa | padded to the longest of their micro-batch | nothing |
| `varlen` | torch's own FlashAttention (`torch.nn.attention.varlen`) | packed | CUDA, compute capability 8.0 |
| `flash_attn` | the package flash-attn | packed | CUDA, flash-attn built for this torch |

`auto` is `flash_attn` where it is installed, else `varlen`; on a CPU `padded`.
"""

from typing import Literal

from omegaconf import DictConfig

from safer_steer.errors import UserError
from safer_steer.packages import installed_version

Attention = Literal["auto", "padded", "varlen", "flash_attn"]
VARLEN_IMPLEMENTATION = "flash_varlen"  # transformers and the vision tower look for "flash" in the name
IMPLEMENTATIONS = {"padded": "sdpa", "varlen": VARLEN_IMPLEMENTATION, "flash_attn": "flash_attention_2"}
MODEL = "actor_rollout_ref.model"


def choose(setting: str, device: str) -> str:
    """The path that `setting` means on `device` (`trainer.device`).

    Raises:
        UserError: that path cannot run here.
    """
    if setting in ("varlen", "flash_attn") and device == "cpu":
        raise UserError(f"safer_steer.attention: {setting} needs a GPU, trainer.device is cpu; use auto or padded")
    if setting == "flash_attn" and not has_flash_attn():
        raise UserError(
            "safer_steer.attention: flash_attn, but flash-attn is not installed; use auto, varlen or padded"
        )
    if setting != "auto":
        return setting
    if device == "cpu":
        return "padded"
    return "flash_attn" if has_flash_attn() else "varlen"


def has_flash_attn() -> bool:
    """True when the package flash-attn is installed; flash-attn-4, whose folder has the same name, is another."""
    return installed_version("flash-attn") is not None


def problems(tree: DictConfig) -> list[str]:
    """What is wrong with the attention of a composed config, one line each."""
    model, found = tree.actor_rollout_ref.model, []
    if model.use_remove_padding is not None or model.override_config.get("attn_implementation") is not None:
        keys = f"{MODEL}.use_remove_padding, {MODEL}.override_config.attn_implementation"
        found.append(f"{keys}: these follow from safer_steer.attention; set that instead")
    if not model.use_fused_kernels or model.fused_kernel_options.impl_backend != "torch":
        found.append(f"{MODEL}.use_fused_kernels: must stay true with impl_backend torch, log-probs are in fp32 by it")
    if model.lora_rank and "lm_head" in str(model.target_modules):
        found.append(f"{MODEL}.target_modules: lm_head cannot have an adapter, log-probs are computed in it")
    try:
        choose(tree.safer_steer.get("attention", "auto"), tree.trainer.device)
    except UserError as error:
        found.append(str(error))
    return found


def apply(config: DictConfig) -> str:
    """Sets verl's keys in a config that `problems` found nothing in; returns the path."""
    path = choose(config.safer_steer.get("attention", "auto"), config.trainer.device)
    model = config.actor_rollout_ref.model
    model.use_remove_padding = path != "padded"
    model.override_config.attn_implementation = IMPLEMENTATIONS[path]
    if path != "padded" and not config.actor_rollout_ref.actor.use_dynamic_bsz:
        _cut_by_tokens(config)
    return path


def _cut_by_tokens(config: DictConfig) -> None:
    """Packed rows cost what their tokens cost: micro-batches of as many tokens as the configured rows have at most.

    Short trajectories then share a forward pass, in the same memory. Padded rows cost the longest one's length each, so
    they stay cut by rows.
    """
    refs, length = config.actor_rollout_ref, config.data.max_prompt_length + config.data.max_response_length
    refs.actor.use_dynamic_bsz = refs.rollout.log_prob_use_dynamic_bsz = refs.ref.log_prob_use_dynamic_bsz = True
    refs.actor.ppo_max_token_len_per_gpu = (refs.actor.ppo_micro_batch_size_per_gpu or 1) * length
    for part in (refs.rollout, refs.ref):
        part.log_prob_max_token_len_per_gpu = (part.log_prob_micro_batch_size_per_gpu or 1) * length


def describe(setting: str, device: str) -> str:
    """One line for the plan: the path, whether it was chosen here, and what becomes of the rows."""
    path = choose(setting, device)
    why = " (auto)" if setting == "auto" else ""
    rows = "padded to the longest of their micro-batch" if path == "padded" else "packed"
    return f"attention {path}{why}: rows {rows}"
