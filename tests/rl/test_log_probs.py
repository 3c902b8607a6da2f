"""Log-probabilities and entropies of the trainer against torch's log-softmax in fp64: values, gradients, memory."""

import weakref
from functools import cache
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from safer_steer_verl.platform import log_probs
from safer_steer_verl.platform.log_probs import token_log_probs


def reference(hidden, weight, labels, temperature):
    logits = hidden.double() @ weight.double().T / temperature
    log_p = logits.log_softmax(-1)
    return log_p.gather(-1, labels.unsqueeze(-1)).squeeze(-1), -(log_p.exp() * log_p).sum(-1)


def inputs(tokens, width, words, dtype=torch.float32, scale=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(*tokens, width, generator=generator).mul_(scale).to(dtype).requires_grad_()
    weight = torch.randn(words, width, generator=generator).div_(width**0.5).to(dtype).requires_grad_()
    labels = torch.randint(words, tuple(tokens), generator=generator)
    factors = torch.randn(2, *tokens, generator=generator)
    return hidden, weight, labels, factors


def gradients(values, factors, *leaves):
    return torch.autograd.grad(
        sum((value * factor).sum() for value, factor in zip(values, factors, strict=False)), leaves
    )


@settings(max_examples=40)
@given(
    tokens=st.lists(st.integers(1, 5), min_size=1, max_size=2),
    words=st.integers(2, 90),
    chunk=st.integers(1, 100),
    temperature=st.sampled_from([0.5, 1.0, 1.3]),
    scale=st.sampled_from([0.1, 3.0, 40.0]),
    seed=st.integers(0, 99),
)
def test_any_chunking_gives_the_values_and_gradients_of_log_softmax(tokens, words, chunk, temperature, scale, seed):
    hidden, weight, labels, factors = inputs(tokens, 8, words, scale=scale, seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_probs, "chunk_words", lambda _: chunk)
        got = token_log_probs(hidden, weight, labels, temperature)
        got_gradients = gradients(got, factors, hidden, weight)
    wanted = reference(hidden, weight, labels, temperature)
    for a, b in zip((*got, *got_gradients), (*wanted, *gradients(wanted, factors, hidden, weight)), strict=True):
        largest = max(scale, float(b.detach().abs().max()))  # sums of terms as large as that cancel
        assert torch.allclose(a.double(), b.double(), rtol=1e-4, atol=5e-5 * largest)


@pytest.mark.parametrize(
    ("of", "leaf"), [(0, 0), (1, 0), (0, 1), (1, 1)], ids=["p-hidden", "H-hidden", "p-head", "H-head"]
)
def test_one_value_or_one_leaf_alone(of, leaf):
    """As in an update without entropy bonus, and under LoRA, where the head is frozen."""
    hidden, weight, labels, factors = inputs((7,), 8, 50)
    leaves = (hidden, weight)
    leaves[1 - leaf].requires_grad_(False)
    got = gradients(token_log_probs(hidden, weight, labels)[of : of + 1], factors, leaves[leaf])
    wanted = gradients(reference(hidden, weight, labels, 1.0)[of : of + 1], factors, leaves[leaf])
    assert torch.allclose(got[0], wanted[0], atol=1e-5)


def test_in_bf16_the_values_are_those_of_fp32_logits():
    """At the real vocabulary. A log-softmax of bf16 logits, verl's way, misses by far more."""
    hidden, weight, labels, _ = inputs((16,), 256, 151_936, dtype=torch.bfloat16)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):  # as verl's engine calls it
        got = token_log_probs(hidden, weight, labels)
    wanted = reference(hidden, weight, labels, 1.0)
    assert got[0].dtype == got[1].dtype == torch.float32
    for a, b in zip(got, wanted, strict=True):
        assert (a - b).abs().max() < 1e-4
    in_bf16 = (hidden @ weight.T).log_softmax(-1).gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    assert (in_bf16 - wanted[0]).abs().max() > 1e-2


def test_bf16_gradients_are_those_of_fp32_within_a_rounding():
    hidden, weight, labels, factors = inputs((24,), 64, 3000, dtype=torch.bfloat16)
    got = gradients(token_log_probs(hidden, weight, labels), factors, hidden, weight)
    wanted = gradients(reference(hidden, weight, labels, 1.0), factors, hidden, weight)
    for a, b in zip(got, wanted, strict=True):
        assert a.dtype == torch.bfloat16
        assert (a.float() - b.float()).norm() < 1e-2 * b.float().norm()


class Meter(TorchDispatchMode):
    """The most bytes that tensors had at once, real or without memory (FakeTensorMode)."""

    def __init__(self):
        super().__init__()
        self.sizes, self.now, self.peak = {}, 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in (item for item in tree_leaves(out) if isinstance(item, torch.Tensor)):
            storage = tensor.untyped_storage()
            if storage._cdata not in self.sizes:
                self.sizes[storage._cdata] = storage.nbytes()
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self.free, storage._cdata)
        return out

    def free(self, key):
        self.now -= self.sizes.pop(key)


def peak_bytes(compute, tokens, device="cpu"):
    """Of values and both gradients, beyond the inputs, at Qwen2.5-VL-3B's width and vocabulary in bf16."""
    with FakeTensorMode():
        hidden, weight = (torch.empty(rows, 2048, dtype=torch.bfloat16, device=device) for rows in (tokens, 151_936))
        labels = torch.empty(tokens, dtype=torch.long, device=device)
        with Meter() as meter:
            compute(hidden, weight, labels)
    return meter.peak


def forward_and_backward(function):
    def compute(hidden, weight, labels):
        values = function(hidden.requires_grad_(), weight.requires_grad_(), labels)
        sum(value.sum() for value in values).backward()

    return compute


def unchunked(hidden, weight, labels):
    log_p = (hidden @ weight.T).float().log_softmax(-1)
    return log_p.gather(1, labels.unsqueeze(1)).squeeze(1), -(log_p.exp() * log_p).sum(-1)


@cache
def chunked_peak():
    return peak_bytes(forward_and_backward(token_log_probs), 20_480)


def test_no_matrix_of_tokens_by_words_stands_in_memory():
    """Of two rows of 10,240 tokens: 2 GB instead of 63, of which the head's own gradient is 0.6."""
    whole = peak_bytes(forward_and_backward(unchunked), 20_480)
    assert chunked_peak() < whole / 25
    assert chunked_peak() < 20_480 * 151_936  # one byte an element would be more


def test_the_cuda_branch_takes_the_same_types_and_no_more_memory():
    """On CUDA tensors without memory, forward and backward by hand: autograd's threads would want a GPU."""
    answers = {}

    def compute(hidden, weight, labels):
        context = SimpleNamespace(set_materialize_grads=lambda _: None, needs_input_grad=(True, True, False, False))
        context.save_for_backward = lambda *tensors: setattr(context, "saved_tensors", tensors)
        values = log_probs._TokenLogProbs.forward(context, hidden, weight, labels, 1.0)
        answers["values"] = values
        answers["gradients"] = log_probs._TokenLogProbs.backward(context, *values)[:2]

    assert peak_bytes(compute, 20_480, "cuda") <= chunked_peak()
    for value in answers["values"]:
        assert (value.shape, value.dtype, value.device.type) == ((20_480,), torch.float32, "cuda")
    assert [tuple(gradient.shape) for gradient in answers["gradients"]] == [(20_480, 2048), (151_936, 2048)]
    assert all(gradient.dtype == torch.bfloat16 for gradient in answers["gradients"])
