"""vLLM's CPU worker with weights that can be loaded again (`rollout.engine_kwargs.vllm.worker_extension_cls`).

On a CPU, vLLM repacks linear weights (oneDNN, SGL kernels) and leaves an empty tensor behind, so the weight update
after a training step fails and verl waits for ever. With both turned off, a layer is `torch.nn.functional.linear` on
the live parameter.
"""

import os

from verl.workers.rollout.vllm_rollout.utils import vLLMColocateWorkerExtension


class CPUWorkerExtension(vLLMColocateWorkerExtension):
    """verl's worker extension, made before any weight is repacked."""

    def __new__(cls, *args, **kwargs):
        """Turns the repacking kernels off, then makes the worker."""
        os.environ["VLLM_CPU_SGL_KERNEL"] = "0"
        from vllm import _custom_ops

        _custom_ops._supports_onednn = False
        return super().__new__(cls, **kwargs)
