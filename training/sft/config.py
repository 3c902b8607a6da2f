"""Configuration of SFT: what is trained on what, for how long, and the batch arithmetic that must come out."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, Field, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from safer_steer.answer_format import AnswerFormat
from safer_steer.config import Operational, Section
from safer_steer.picture_size import MAX_PIXELS, PixelLimit
from training.sft.checks import batch_problem, deepspeed_problem, file_problems

PositiveInt = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Period = Literal["epoch"] | PositiveInt  # at the end of every epoch, or every so many steps


class ImageConfig(Section):
    """How large pictures are. The exported checkpoint's processor says so too, so that other programs agree."""

    max_pixels: PixelLimit = MAX_PIXELS
    """Px of one picture; larger ones are reduced."""


class FreezeConfig(Section):
    """Parts that keep their weights; LoRA leaves out the same parts."""

    vision_tower: bool = False
    """The picture encoder."""
    projector: bool = False
    """What maps pictures into the language model."""


class LoraSettings(Section):
    """Low-rank adapters on every linear layer of the parts that are not frozen, the output head left out.

    The update of a layer is `alpha / rank` times the product of two matrices of that rank.
    """

    rank: PositiveInt
    """Of the two matrices."""
    alpha: Annotated[float, Field(gt=0)]
    """Scale of the update, before the division by the rank."""
    dropout: Fraction = 0.0
    """Share of an adapter's inputs that is set to 0 in training."""


class TrainingConfig(Section):
    """Optimisation; `batch_size` must equal per_device_batch_size x gradient_accumulation x processes."""

    epochs: PositiveInt
    """Passes over the data."""
    export_epoch: PositiveInt | None = None
    """The epoch whose weights become `checkpoint/`; null: the last."""
    batch_size: PositiveInt
    """Rows of one optimiser step, over all processes."""
    per_device_batch_size: PositiveInt
    """Rows of one forward pass."""
    gradient_accumulation: PositiveInt = 1
    """Forward passes of one process per optimiser step."""
    processes: PositiveInt = 1
    """One for each GPU, over all nodes."""
    length_grouped: bool = False
    """Batches of rows of like length: less padding."""
    learning_rate: Annotated[float, Field(gt=0)]
    """Its peak, of AdamW."""
    weight_decay: Annotated[float, Field(ge=0)]
    """Of AdamW."""
    warmup_ratio: Fraction
    """Share of the steps in which the learning rate rises."""
    scheduler: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    """How the learning rate falls after the warm-up."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Longer gradients are scaled down to this norm."""
    precision: Literal["bf16", "fp32"]
    """Of forward and backward pass."""
    gradient_checkpointing: bool = False
    """Activations are computed again in the backward pass: less memory, a third more time."""
    deepspeed: Annotated[str, AfterValidator(deepspeed_problem)] | None = None
    """A YAML file of DeepSpeed settings (configs/deepspeed/); null: plain data parallelism."""
    save_every: Period = "epoch"
    """Steps between checkpoints, or `epoch`."""
    keep_checkpoints: PositiveInt = 2
    """The last ones; older ones are removed."""
    eval_every: Period = "epoch"
    """Steps between evaluations of the held-out dialogues, or `epoch`."""
    log_every: PositiveInt = 1
    """Steps between rows of log.jsonl."""
    data_workers: Annotated[int, Field(ge=0)] = 0
    """Processes per training process that load rows; 0: itself."""
    stall_s: Annotated[float, Field(gt=0), Operational] = 1800.0
    """Seconds without a forward pass, a step or a checkpoint before training is ended; above what a checkpoint takes.
    """
    trackers: list[Literal["tensorboard", "wandb", "swanlab"]] = []
    """Where the metrics go next to log.jsonl."""

    @model_validator(mode="after")
    def _arithmetic(self) -> Self:
        problem = batch_problem(self.batch_size, self.per_device_batch_size, self.gradient_accumulation, self.processes)
        if problem:
            raise ValueError(problem)
        if self.export_epoch and self.export_epoch > self.epochs:
            raise ValueError(f"export_epoch {self.export_epoch} is above epochs {self.epochs}")
        return self

    @property
    def zero_stage(self) -> int:
        """DeepSpeed's ZeRO stage; 0 without DeepSpeed."""
        return self.deepspeed_settings()["zero_optimization"]["stage"] if self.deepspeed else 0

    def deepspeed_settings(self) -> dict[str, Any]:
        """The DeepSpeed file as a dict."""
        return yaml.safe_load(Path(self.deepspeed).read_text(encoding="utf-8"))


class SftConfig(Section):
    """Everything `python -m training.sft.run` needs."""

    root: str = "outputs"
    """Folder of the whole run, which others of the config lie below."""
    model: str
    """Folder or hub id of the checkpoint to start from."""
    data: str
    """Dialogue rows (steer_sft.jsonl); picture paths are relative to its folder."""
    output: str
    """Folder to write: checkpoint/, log.jsonl, rejects.jsonl, run.json."""
    device: Literal["cpu", "cuda"]
    """Where to train."""
    seed: int = 0
    """Of row order, dropout and held-out dialogues."""
    max_length: PositiveInt
    """Tokens of a row, pictures included; a longer dialogue loses its last turns."""
    turns: Literal["all", "last"] = "all"
    """`all` turns: a dialogue is a row, every answer is learnt. `last`: a dialogue's last question alone, without its
    history but with the pictures shown so far, so as many rows (`ablation=single_turn`, Tables 4 and 9).
    """
    answer_format: AnswerFormat = AnswerFormat()
    """System prompt put before every dialogue, and the tags that every answer must be made of: rows with another answer
    are rejected. A YAML file (configs/answer_format/) or its content.
    """
    eval_share: Fraction = 0.0
    """Share of the dialogues held out for the evaluation loss."""
    images: ImageConfig = ImageConfig()
    freeze: FreezeConfig = FreezeConfig()
    lora: LoraSettings | None = None
    """Null: all weights that are not frozen are trained."""
    training: TrainingConfig

    @model_validator(mode="wrap")
    @classmethod
    def _all_problems_at_once(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Adds what pydantic does not look at once a section is wrong: batch arithmetic and missing files."""
        try:
            return handler(data)
        except ValidationError as error:
            found = [
                InitErrorDetails(type=item["type"], loc=item["loc"], input=item["input"], ctx=item.get("ctx", {}))
                for item in error.errors()
            ]
            found += [problem for problem in _unseen_problems(data) if str(problem["type"]) not in str(error)]
            raise ValidationError.from_exception_data(cls.__name__, found) from error


def _unseen_problems(data: Any) -> list[InitErrorDetails]:
    """Problems of data that did not validate which no single field shows."""
    if not isinstance(data, dict):
        return []
    training = data.get("training") if isinstance(data.get("training"), dict) else {}
    names = ("batch_size", "per_device_batch_size", "gradient_accumulation", "processes")
    numbers = [training.get(name, 1) for name in names]
    arithmetic = batch_problem(*numbers) if all(type(number) is int for number in numbers) else None
    found = [(("training", "batch_size"), numbers[0], arithmetic)] if arithmetic else []
    for name in ("model", "data"):
        if isinstance(data.get(name), str):
            found += [((name,), data[name], text) for text in file_problems(**{name: data[name]})]
    return [
        InitErrorDetails(type=PydanticCustomError("run", "{text}", {"text": text}), loc=loc, input=value)
        for loc, value, text in found
    ]
