"""Configuration of SFT: what is trained on what, for how long, and the batch arithmetic that must come out."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from safer_steer.config import Section
from safer_steer.errors import UserError

PositiveInt = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class ImageConfig(Section):
    """Picture area limits in pixels; null keeps those of the checkpoint's processor."""

    min_pixels: Annotated[int, Field(ge=28 * 28)] | None = None
    max_pixels: Annotated[int, Field(ge=28 * 28)] | None = None


class FreezeConfig(Section):
    """Parts that keep their weights."""

    vision_tower: bool = False
    projector: bool = False


class TrainingConfig(Section):
    """Optimisation; `batch_size` must equal per_device_batch_size x gradient_accumulation x processes."""

    epochs: PositiveInt
    batch_size: PositiveInt
    per_device_batch_size: PositiveInt
    gradient_accumulation: PositiveInt = 1
    processes: PositiveInt = 1
    learning_rate: Annotated[float, Field(gt=0)]
    weight_decay: Annotated[float, Field(ge=0)]
    warmup_ratio: Fraction
    scheduler: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    precision: Literal["bf16", "fp32"]
    gradient_checkpointing: bool = False
    zero_stage: Literal[0, 2, 3] = 0
    save_every: Literal["epoch"] | PositiveInt = "epoch"
    keep_checkpoints: PositiveInt = 2
    log_every: PositiveInt = 1
    data_workers: Annotated[int, Field(ge=0)] = 0
    trackers: list[Literal["tensorboard", "wandb"]] = []

    @model_validator(mode="after")
    def _batch_arithmetic(self) -> Self:
        product = self.per_device_batch_size * self.gradient_accumulation * self.processes
        if product != self.batch_size:
            raise ValueError(
                f"batch_size {self.batch_size} is not per_device_batch_size {self.per_device_batch_size} x "
                f"gradient_accumulation {self.gradient_accumulation} x processes {self.processes} = {product}"
            )
        return self

    def check_world_size(self, world_size: int) -> None:
        """Compares `processes` with what was launched.

        Raises:
            UserError: they differ; the message names a setting that keeps the batch size, where there is one.
        """
        if world_size == self.processes:
            return
        accumulation, rest = divmod(self.batch_size, self.per_device_batch_size * world_size)
        advice = "or change training.per_device_batch_size"
        if not rest:
            advice = f"or set training.processes={world_size} training.gradient_accumulation={accumulation}"
        raise UserError(
            f"{world_size} process(es) were launched, but training.processes is {self.processes}: the batch would not "
            f"be {self.batch_size}; launch {self.processes} (GPUS={self.processes} bash scripts/run_sft.sh) {advice}"
        )


class SftConfig(Section):
    """Everything `python -m training.sft.run` needs."""

    root: str = "outputs"
    model: str
    data: str
    output: str
    device: Literal["cpu", "cuda"]
    seed: int = 0
    max_length: PositiveInt
    system_prompt: str | None = None
    images: ImageConfig = ImageConfig()
    freeze: FreezeConfig = FreezeConfig()
    training: TrainingConfig

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.training.zero_stage and self.device == "cpu":
            raise ValueError("training.zero_stage needs device=cuda; set training.zero_stage=0 on a CPU")
        if self.images.min_pixels and self.images.max_pixels and self.images.min_pixels > self.images.max_pixels:
            raise ValueError("images.min_pixels is above images.max_pixels")
        return self

    def check_model(self) -> None:
        """Stops on a checkpoint folder that is not there; a name such as `Qwen/Qwen2.5-VL-3B-Instruct` is the hub's.

        Raises:
            UserError: `model` is a path and holds no config.json.
        """
        path = Path(self.model)
        local = path.is_dir() or path.is_absolute() or len(path.parts) != 2 or Path(path.parts[0]).is_dir()
        if local and not (path / "config.json").is_file():
            raise UserError(f"no checkpoint at {path}: no config.json; run the stage that writes it, or set model=")
