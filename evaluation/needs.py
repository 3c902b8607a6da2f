"""What an evaluation needs of its machine, by arithmetic from its config."""

from pathlib import Path

from evaluation.config import EvaluationConfig
from safer_steer.machine import GIB, Needs
from safer_steer.model_shape import parameters
from safer_steer.preflight import installed_mode


def needs(config: EvaluationConfig) -> Needs:
    """GPUs of one model's server, where checkpoints are served, and main memory for the weights of the largest, of
    the two largest where one starts ahead.
    """
    checkpoints = [model.checkpoint for model in config.models.values() if model.checkpoint]
    local = config.serving.tensor_parallel * config.serving.copies() if checkpoints else 0
    cuda = bool(checkpoints) and installed_mode() == "gpu"
    at_once = 2 if config.serving.start_ahead else 1
    number = sum(sorted((parameters(checkpoint) or 0 for checkpoint in checkpoints), reverse=True)[:at_once])
    return Needs(
        device="cuda" if cuda else "cpu",
        folder=Path(config.output),
        gpus=local if cuda else 0,
        host=number * 2 * (config.serving.copies() if not cuda else 1),
        host_why="the weights of what is served at once",
        shm=GIB if cuda and local > 1 else 0.0,
    )
