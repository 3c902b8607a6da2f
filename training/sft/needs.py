"""What an SFT run needs of each machine, by arithmetic from its config."""

import math
import os
from pathlib import Path

from safer_steer.machine import GIB, Needs
from safer_steer.model_shape import parameters
from training.sft.config import SftConfig

PROCESS = 2e9  # bytes of a training process itself


def needs(config: SftConfig) -> Needs:
    """Disk and memory follow the number of parameters; 0 where that is not known.

    A checkpoint to resume from holds weights and Adam's moments: 14 bytes a parameter under DeepSpeed (bf16 weights, an
    fp32 copy, two moments), 12 without it, and next to nothing with LoRA. One more than are kept is there while it is
    written, and the exported weights twice.
    """
    training, number = config.training, parameters(config.model) or 0
    half = training.precision == "bf16" and (training.deepspeed or config.lora)
    weights = number * (2 if half else 4)
    one = 0.1 * number if config.lora else number * (14 if training.deepspeed else 12)
    nodes = int(os.environ.get("NNODES", "1"))
    local = math.ceil(training.processes / nodes)
    if config.device == "cpu":
        host = local * (2 * weights if config.lora else 16 * number)
        why = f"{local} process(es) with {'the weights twice' if config.lora else 'weights, gradients and moments'}"
    else:
        loading = weights if training.deepspeed else local * weights  # ZeRO's processes read the same mapped files
        host, why = max(loading, 4 * number if config.lora else 0) + local * PROCESS, "weights while they are loaded"
    return Needs(
        device=config.device,
        folder=Path(config.output),
        gpus=local if config.device == "cuda" else 0,
        nodes=nodes,
        disk=(training.keep_checkpoints + 1) * one + 2 * weights,
        disk_why=f"{training.keep_checkpoints} checkpoints and one being written, and the export",
        host=host,
        host_why=why,
        shm=GIB if config.device == "cuda" and (local > 1 or training.data_workers) else 0.0,
    )
