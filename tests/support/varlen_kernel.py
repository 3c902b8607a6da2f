"""Stand-ins on a CPU for the two CUDA kernels below `torch.nn.attention.varlen`, strict about what they are given.

torch's own Python code, its operator schemas (types of the arguments) and its autograd formula run as on a GPU; only
`aten::_flash_attention_forward` and its backward, which have no CPU kernel, are put in their place. They refuse what
the CUDA kernels refuse (torch 2.11, aten/src/ATen/native/transformers/cuda/flash_attn/flash_api.cpp), but take fp32
too, so that a path can be compared with a reference in fp32. `install` is for a process of its own.
"""

import torch

CALLS: list[dict] = []  # what each forward call was given
_library = None


def register() -> None:
    """Gives the two operators, which have no CPU kernel, the stand-ins."""
    global _library
    if _library is None:
        _library = torch.library.Library("aten", "IMPL")
        _library.impl("_flash_attention_forward", _forward, "CPU")
        _library.impl("_flash_attention_backward", _backward, "CPU")


def install() -> None:
    """Lets our packed path run on a CPU, in fp32 as well."""
    register()
    from verl.models.transformers import qwen2_vl

    from safer_steer_verl.platform import varlen_attention

    varlen_attention.kernel_problem = lambda: None
    # verl casts fp32 to bf16 for the kernels' sake, silently.
    qwen2_vl.fa_peft_integration_check = lambda q, k, v, target_dtype=None: (q, k, v)


def _forward(
    query,
    key,
    value,
    cum_seq_q,
    cum_seq_k,
    max_q,
    max_k,
    dropout_p,
    is_causal,
    return_debug_mask,
    *,
    scale=None,
    window_size_left=None,
    window_size_right=None,
    seqused_k=None,
    alibi_slopes=None,
):
    assert dropout_p == 0
    assert not return_debug_mask
    assert seqused_k is alibi_slopes is None
    rows = _rows(query, key, value, cum_seq_q, cum_seq_k, max_q, max_k, is_causal, window_size_left, window_size_right)
    CALLS.append({"rows": len(rows), "tokens": len(query), "heads": query.shape[1], "causal": is_causal})
    parts = [_attend(query[q], key[k], value[k], is_causal, scale) for q, k in rows]
    out = torch.cat([part[0] for part in parts]).to(query.dtype)
    log_sums = torch.cat([part[1] for part in parts], dim=1)
    state = torch.zeros(2, dtype=torch.uint64)
    return out, log_sums, state, torch.empty(0), torch.empty(0)


def _backward(
    grad_out,
    query,
    key,
    value,
    out,
    logsumexp,
    cum_seq_q,
    cum_seq_k,
    max_q,
    max_k,
    dropout_p,
    is_causal,
    rng_state,
    unused,
    *,
    scale=None,
    window_size_left=None,
    window_size_right=None,
):
    assert dropout_p == 0
    assert grad_out.shape == out.shape == query.shape
    assert grad_out.dtype == query.dtype
    assert logsumexp.shape == (query.shape[1], len(query))
    assert rng_state.shape == (2,)
    rows = _rows(query, key, value, cum_seq_q, cum_seq_k, max_q, max_k, is_causal, window_size_left, window_size_right)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    grads = [torch.zeros_like(part) for part in (query, key, value)]
    for q, k in rows:
        weights = (_scores(query[q], key[k], is_causal, scale) - logsumexp[:, q].unsqueeze(-1)).exp()
        ahead = grad_out[q].float()
        inner = torch.einsum("qhd,khd->hqk", ahead, value[k].float())
        inner -= (ahead * out[q].float()).sum(-1).T.unsqueeze(-1)
        inner *= weights * scale
        grads[0][q] = torch.einsum("hqk,khd->qhd", inner, key[k].float()).to(query.dtype)
        grads[1][k] = torch.einsum("hqk,qhd->khd", inner, query[q].float()).to(query.dtype)
        grads[2][k] = torch.einsum("hqk,qhd->khd", weights, ahead).to(query.dtype)
    return tuple(grads)


def _rows(query, key, value, starts_q, starts_k, max_q, max_k, is_causal, left, right):
    """The slices of each packed row, after the checks of the CUDA kernel."""
    for part in (query, key, value):
        assert part.dim() == 3
        assert part.dtype == query.dtype
        assert part.dtype in (torch.bfloat16, torch.float16, torch.float32)
        assert part.stride(-1) == 1
    heads, width = query.shape[1:]
    assert key.shape == value.shape
    assert key.shape[1:] == (heads, width), "varlen_attn of torch 2.11 documents equal heads only"
    assert width % 8 == 0
    assert width <= 256
    for starts, total, longest in ((starts_q, len(query), max_q), (starts_k, len(key), max_k)):
        assert starts.dtype == torch.int32
        assert starts.is_contiguous()
        assert starts.dim() == 1
        assert starts[0] == 0
        assert starts[-1] == total
        lengths = starts.diff()
        assert (lengths > 0).all()
        assert type(longest) is int
        assert longest == lengths.max(), "a shorter one would leave tokens out, a longer one costs time"
    assert len(starts_q) == len(starts_k)
    assert (left, right) == ((-1, 0) if is_causal else (-1, -1)), "windows are not used here"
    bounds = zip(starts_q.tolist(), starts_q.tolist()[1:], starts_k.tolist(), starts_k.tolist()[1:], strict=False)
    return [(slice(a, b), slice(c, d)) for a, b, c, d in bounds]


def _attend(query, key, value, is_causal, scale):
    """(tokens, heads, width) and the log-sums (heads, tokens) in fp32, as the kernel's softmax."""
    scores = _scores(query, key, is_causal, query.shape[-1] ** -0.5 if scale is None else scale)
    log_sums = scores.logsumexp(-1)
    weights = (scores - log_sums.unsqueeze(-1)).exp().to(query.dtype)  # the kernel multiplies in the inputs' type
    return torch.einsum("hqk,khd->qhd", weights.float(), value.float()), log_sums


def _scores(query, key, is_causal, scale):
    scores = torch.einsum("qhd,khd->hqk", query.float(), key.float()) * scale
    return scores.masked_fill(torch.ones(scores.shape[1:]).triu(1) > 0, -torch.inf) if is_causal else scores
