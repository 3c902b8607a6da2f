"""FlashAttention over packed rows with torch's own kernels, where the package flash-attn is not installed.

`torch.nn.attention.varlen` has the same kernels and a backward pass. Two functions with flash-attn's signatures call
it; `install` puts them where transformers (text and vision tower) and verl look for flash-attn.
"""

import torch
from torch.nn.attention import varlen
from transformers import modeling_flash_attention_utils as flash_utils
from transformers.integrations.flash_attention import flash_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, flash_attention_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from verl.models.transformers import qwen2_vl

from safer_steer_verl.platform.attention import VARLEN_IMPLEMENTATION

ANYWHERE = (-1, -1)
INSTEAD = "set safer_steer.attention=padded"


def flash_attn_varlen_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int | torch.Tensor,
    max_seqlen_k: int | torch.Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = ANYWHERE,
) -> torch.Tensor:
    """Attention of each packed row to itself; flash-attn's function of this name.

    Args:
        q: (tokens, heads, head width).
        k: (tokens, key heads, head width); the key heads divide the heads.
        v: as k.
        cu_seqlens_q: (rows + 1,) where each row starts, and the end.
        cu_seqlens_k: as cu_seqlens_q, of the keys.
        max_seqlen_q: length of the longest row.
        max_seqlen_k: as max_seqlen_q, of the keys.
        dropout_p: 0: the kernels have none.
        softmax_scale: 1 / sqrt(head width) unless given.
        causal: each token attends to itself and what is before it in its row.
        window_size: tokens to the left and to the right; -1 for all.

    Returns:
        (tokens, heads, head width).

    Raises:
        ValueError: the kernels cannot do what is asked for.
    """
    if dropout_p:
        raise ValueError(f"attention dropout {dropout_p}: torch's varlen attention has none; {INSTEAD}")
    if q.shape[-1] % 8 or q.shape[-1] > 256:
        raise ValueError(f"head width {q.shape[-1]}: FlashAttention takes multiples of 8 up to 256; {INSTEAD}")
    repeats = q.shape[1] // k.shape[1]
    if repeats > 1:
        k, v = k.repeat_interleave(repeats, dim=1), v.repeat_interleave(repeats, dim=1)
    return varlen.varlen_attn(
        *(part.contiguous() for part in (q, k, v)),
        cu_seqlens_q.to(torch.int32),
        cu_seqlens_k.to(torch.int32),
        int(max_seqlen_q),
        int(max_seqlen_k),
        scale=softmax_scale,
        window_size=(window_size[0], 0) if causal else tuple(window_size),
    )


def flash_attn_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = ANYWHERE,
) -> torch.Tensor:
    """Attention of rows of one length, (batch, length, heads, head width); flash-attn's function of this name."""
    (batch, length), keys = q.shape[:2], k.shape[1]
    starts, key_starts = (torch.arange(batch + 1, dtype=torch.int32, device=q.device) * size for size in (length, keys))
    flat = (part.flatten(0, 1) for part in (q, k, v))
    out = flash_attn_varlen_func(
        *flat, starts, key_starts, length, keys, dropout_p, softmax_scale, causal, window_size=window_size
    )
    return out.unflatten(0, (batch, length))


def kernel_problem() -> str | None:
    """Why torch's kernels cannot run here, or None."""
    if not torch.cuda.is_available():
        return "no GPU is visible"
    if (capability := torch.cuda.get_device_capability()) < (8, 0):
        return f"{torch.cuda.get_device_name()} has compute capability {capability[0]}.{capability[1]}, 8.0 is needed"
    return None


def install() -> None:
    """Makes `attn_implementation=flash_varlen` known, and puts the functions where flash-attn's would be.

    Raises:
        RuntimeError: the kernels cannot run on this device.
    """
    if problem := kernel_problem():
        raise RuntimeError(f"packed attention with torch's varlen kernels: {problem}; {INSTEAD}")
    ALL_ATTENTION_FUNCTIONS.register(VARLEN_IMPLEMENTATION, flash_attention_forward)
    ALL_MASK_ATTENTION_FUNCTIONS.register(VARLEN_IMPLEMENTATION, flash_attention_mask)
    # What `lazy_import_flash_attention` would have found.
    flash_utils._loaded_implementation = VARLEN_IMPLEMENTATION
    flash_utils._flash_fn, flash_utils._flash_varlen_fn = flash_attn_func, flash_attn_varlen_func
    flash_utils._pad_fn, flash_utils._unpad_fn = flash_utils._pad_input, flash_utils._unpad_input
    flash_utils._process_flash_kwargs_fn = flash_utils._lazy_define_process_function(flash_attn_varlen_func)
    # What verl's forward of Qwen2-VL and Qwen2.5-VL imports from flash-attn, and learns about it.
    qwen2_vl.flash_attn_func, qwen2_vl.flash_attn_varlen_func = flash_attn_func, flash_attn_varlen_func
    qwen2_vl._flash_supports_window_size = True
    qwen2_vl._flash_supports_deterministic = qwen2_vl._flash_use_top_left_mask = False
