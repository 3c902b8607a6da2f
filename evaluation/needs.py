"""What an evaluation needs of its machine, by arithmetic from its config."""

from pathlib import Path

from evaluation.config import EvaluationConfig
from safer_steer.machine import GIB, Needs
from safer_steer.model_shape import parameters
from safer_steer.preflight import installed_mode


def needs(config: EvaluationConfig) -> Needs:
    """GPUs of one model's server, where checkpoints are served, and main memory for the weights of the largest."""
    checkpoints = [model.checkpoint for model in config.models.values() if model.checkpoint]
    local = config.serving.tensor_parallel * config.serving.copies() if checkpoints else 0
    cuda = bool(checkpoints) and installed_mode() == "gpu"
    number = max((parameters(checkpoint) or 0 for checkpoint in checkpoints), default=0)
    return Needs(
        device="cuda" if cuda else "cpu",
        folder=Path(config.output),
        gpus=local if cuda else 0,
        host=number * 2 * (config.serving.copies() if not cuda else 1),
        host_why="the weights of the largest model",
        shm=GIB if cuda and local > 1 else 0.0,
    )
