"""flash-attn's two functions on torch's varlen attention, against torch's sdpa, row by row."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses import FakeTensorMode
from torch.nn.functional import scaled_dot_product_attention

import varlen_kernel
from safer_steer_verl.platform import varlen_attention
from safer_steer_verl.platform.varlen_attention import flash_attn_func, flash_attn_varlen_func

pytestmark = pytest.mark.integration
varlen_kernel.register()


def row_by_row(q, k, v, lengths, causal, scale):
    """(tokens, heads, width) by sdpa, each row alone."""
    rows = zip(*(part.transpose(0, 1).split(lengths, dim=1) for part in (q, k, v)), strict=True)
    out = [scaled_dot_product_attention(*row, is_causal=causal, scale=scale, enable_gqa=True) for row in rows]
    return torch.cat(out, dim=1).transpose(0, 1)


@settings(max_examples=30)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    heads=st.sampled_from([(1, 1), (4, 2), (6, 1)]),
    width=st.sampled_from([8, 80]),
    causal=st.booleans(),
    scale=st.sampled_from([None, 0.3]),
    seed=st.integers(0, 99),
)
def test_packed_rows_attend_to_themselves_alone(lengths, heads, width, causal, scale, seed):
    torch.manual_seed(seed)
    tokens, starts = sum(lengths), torch.tensor([0, *lengths]).cumsum(0)  # int64: flash-attn's callers differ
    parts = [torch.randn(tokens, number, width, requires_grad=True) for number in (heads[0], heads[1], heads[1])]
    longest = torch.tensor(max(lengths))  # as verl and transformers give it
    got = flash_attn_varlen_func(*parts, starts, starts, longest, longest, 0.0, scale, causal)
    wanted = row_by_row(*parts, lengths, causal, scale)
    assert torch.allclose(got, wanted, atol=1e-5)
    ahead = torch.randn_like(got)
    pairs = zip(torch.autograd.grad(got, parts, ahead), torch.autograd.grad(wanted, parts, ahead), strict=True)
    assert all(torch.allclose(a, b, rtol=1e-4, atol=5e-5) for a, b in pairs)


def test_rows_of_one_length():
    q, k, v = (torch.randn(3, 5, heads, 16) for heads in (4, 2, 2))
    got = flash_attn_func(q, k, v, causal=True)
    wanted = scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v)), is_causal=True, enable_gqa=True)
    assert torch.allclose(got, wanted.transpose(1, 2), atol=1e-5)


def test_on_cuda_the_operator_takes_what_it_is_given():
    """With CUDA tensors without memory: torch's own operator checks types and says the shape of the answer."""
    with FakeTensorMode():
        q, k = (torch.empty(12, heads, 128, dtype=torch.bfloat16, device="cuda") for heads in (16, 2))
        starts = torch.empty(3, dtype=torch.int32, device="cuda")
        out = flash_attn_varlen_func(q, k, k, starts, starts, 7, 7, causal=True)
    assert (out.shape, out.dtype, out.device.type) == (q.shape, torch.bfloat16, "cuda")


@pytest.mark.parametrize(
    ("width", "dropout", "said"), [(12, 0.0, "multiples of 8"), (264, 0.0, "up to 256"), (16, 0.1, "dropout 0.1")]
)
def test_what_the_kernels_cannot_do_is_refused_with_a_way_out(width, dropout, said):
    x, starts = torch.zeros(4, 1, width), torch.tensor([0, 4])
    with pytest.raises(ValueError, match=rf"{said}.*safer_steer.attention=padded"):
        flash_attn_varlen_func(x, x, x, starts, starts, 4, 4, dropout)


def test_without_a_gpu_the_packed_path_ends_in_words():
    with pytest.raises(RuntimeError, match=r"no GPU is visible; set safer_steer.attention=padded"):
        varlen_attention.install()


@pytest.mark.parametrize(("capability", "problem"), [((7, 5), "compute capability 7.5, 8.0 is needed"), ((8, 0), None)])
def test_the_gpu_must_have_the_kernels(capability, problem, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Some GPU")
    found = varlen_attention.kernel_problem()
    assert found == problem or problem in found
