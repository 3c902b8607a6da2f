"""A causal language model whose forward pass ends in log-probabilities and entropies instead of logits.

verl's own way to this (`use_fused_kernels`) reads `lm_head.weight` from outside the module: under FSDP2 an untied head
(Qwen2.5-VL-7B) is a unit of its own, whose weight is then a shard. Here the head itself does the work, so FSDP gathers
its weight, and frees it, as for any other module.
"""

import types
from typing import Any

import torch
from torch import nn
from verl.models.transformers.dense_common import CausalLMOutputForPPO

from safer_steer_verl.platform.log_probs import token_log_probs


class LogProbHead(nn.Linear):
    """The output embedding; with labels it returns their log-probabilities and the entropies, else logits."""

    def forward(self, hidden, labels=None, temperature: float = 1.0):
        """Logits (..., words), or two fp32 tensors (...) where labels (...) are given; see `token_log_probs`."""
        if labels is None:
            return super().forward(hidden)
        return token_log_probs(hidden, self.weight, labels, temperature)


def end_in_log_probs(model: nn.Module) -> nn.Module:
    """Changes `model` in place, and returns it; it must be of the usual form: `.model` and a linear `.lm_head`.

    Raises:
        ValueError: it is not.
    """
    head = getattr(model, "lm_head", None)
    if type(head) is not nn.Linear or head.bias is not None or not hasattr(model, "model"):
        raise ValueError(
            f"{type(model).__name__}: no `.model` with a linear `.lm_head`, so no log-probabilities in fp32"
        )
    head.__class__ = LogProbHead
    model.forward = types.MethodType(_forward, model)
    return model


def _forward(
    self: Any,
    input_ids: torch.Tensor,
    temperature: float = 1.0,
    shift_labels: torch.Tensor | None = None,
    **inputs: Any,
) -> CausalLMOutputForPPO:
    """What verl's engine calls: log-probabilities of the following tokens.

    Args:
        input_ids: (batch, length).
        temperature: of the sampling.
        shift_labels: (batch, length) the following tokens where verl knows them (packed rows); else those of the row.
        inputs: all else that the model takes; None counts as not given.
    """
    inputs = {name: value for name, value in inputs.items() if value is not None and name != "return_dict"}
    hidden = self.model(input_ids=input_ids, **inputs)[0]
    labels = torch.roll(input_ids, -1, dims=-1) if shift_labels is None else shift_labels
    log_probs, entropy = self.lm_head(hidden, labels, temperature)
    return CausalLMOutputForPPO(log_probs=log_probs, entropy=entropy)
