"""Log-probabilities and entropies of the trainer against torch's log-softmax in fp64: values, gradients, memory."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

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


@settings(max_examples=40, deadline=None)
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
        assert torch.allclose(a.double(), b.double(), rtol=1e-4, atol=2e-5 * scale)


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


def test_labels_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="do not fit labels"):
        token_log_probs(torch.zeros(3, 8), torch.zeros(9, 8), torch.zeros(4, dtype=torch.long))
