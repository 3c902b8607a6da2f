"""Arithmetic of GPU memory: what training and serving a model of a known shape takes on each GPU. Not a measurement.

Bytes of a parameter: 4 fp32 weights + 4 gradient + 8 Adam, split over the ranks; activations with recomputation: the
input of every layer, and one layer at work; log-probabilities a chunk of tokens at a time. Expect a fifth either way.
"""

from dataclasses import dataclass

from safer_steer.model_shape import VISION_PARAMETERS, Shape

GB = 1e9
TRAINED_BYTES, ADAPTER_BYTES, FROZEN_BYTES = 16, 16, 4
CONTEXT_GB = 3.0  # CUDA, NCCL, what the allocator loses
LIVE_GB = 4.0  # layers gathered ahead and gradients waiting to be summed: ZeRO-3's and FSDP's buffers
CHUNK_TOKENS = 1024  # whose logits stand in memory at once
CHUNK_BYTES = 12  # fp32 logits, their gradient, and one more copy


@dataclass(frozen=True)
class Update:
    """One GPU's part of an update.

    Attributes:
        ranks: GPUs that share the states.
        tokens: of one micro-batch, padding included.
        adapter: parameters of a LoRA adapter; None trains all weights.
    """

    shape: Shape
    ranks: int
    tokens: int
    adapter: float | None = None

    @property
    def states_gb(self) -> float:
        """Weights, gradients and Adam."""
        whole = self.shape.parameters + VISION_PARAMETERS
        if self.adapter is None:
            return whole * TRAINED_BYTES / self.ranks / GB
        return (whole * FROZEN_BYTES + self.adapter * ADAPTER_BYTES) / self.ranks / GB

    @property
    def activations_gb(self) -> float:
        """Of the tokens, in bf16."""
        shape = self.shape
        kept = 2 * shape.layers * shape.hidden
        at_work = 6 * shape.intermediate + 20 * shape.hidden
        logits = min(self.tokens, CHUNK_TOKENS) * shape.words * CHUNK_BYTES
        return (self.tokens * (kept + at_work) + logits) / GB

    @property
    def gb(self) -> float:
        """All of it."""
        return self.states_gb + self.activations_gb + CONTEXT_GB + LIVE_GB


def adapter_parameters(shape: Shape, rank: int) -> float:
    """Of a LoRA adapter on every linear layer of the language part, the output head left out."""
    queries, keys = (shape.hidden + shape.head * heads for heads in (shape.heads, shape.kv_heads))
    sides = 2 * queries + 2 * keys + 3 * (shape.hidden + shape.intermediate)
    return float(shape.layers * rank * sides)
