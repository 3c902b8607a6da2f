"""TRL's `SFTTrainer` on encoded dialogues: loading, frozen parts, NaN guard, log, progress, final checkpoint.

Input: an `SftConfig` and prepared rows. Output: `trainer/checkpoint-N`, `log.jsonl`, `checkpoint/`.
"""

import math
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from datasets import Dataset
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, GenerationConfig, TrainerCallback
from trl import SFTConfig as TrlConfig
from trl import SFTTrainer

from safer_steer.errors import UserError
from safer_steer.progress import ProgressBar
from safer_steer.store import dump_row
from training.sft.checkpoints import last_checkpoint, replace_folder, rewind_log
from training.sft.collator import DialogueCollator
from training.sft.config import FreezeConfig, SftConfig

LOGGED = ("loss", "learning_rate", "grad_norm", "mean_token_accuracy", "num_tokens", "epoch")


class GuardedTrainer(SFTTrainer):
    """`SFTTrainer` that stops on the first loss that is not a number, before it reaches the weights."""

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """One forward and backward pass.

        Raises:
            UserError: the loss is NaN or infinite.
        """
        loss = super().training_step(*args, **kwargs)
        require_finite("loss", loss.item(), self.state.global_step + 1, Path(self.args.output_dir))
        return loss


def require_finite(name: str, value: float, step: int, folder: Path) -> None:
    """Stops the run on NaN or infinity.

    Raises:
        UserError: `value` is not finite.
    """
    if not math.isfinite(value):
        raise UserError(
            f"{name} is {value} at step {step}: training stopped before it could spoil a checkpoint; those in {folder} "
            "are sound; lower training.learning_rate or training.max_grad_norm, or look for odd rows in the data"
        )


class LogCallback(TrainerCallback):
    """Writes `log.jsonl` (a row for each logged step), moves the progress bar and checks the gradient norm."""

    def __init__(self, path: Path):
        self.path, self.bar, self.last = path, None, {}
        self._tokens_before, self._started = 0, time.monotonic()

    def rewind(self, step: int) -> None:
        """Goes back to `step`, the one that training resumes from; the trainer counts tokens anew from there."""
        self.last = rewind_log(self.path, step)
        self._tokens_before = self.last.get("num_tokens", 0)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Opens the progress bar at the step that training goes on from."""
        if state.is_world_process_zero:
            self.bar = ProgressBar("sft: train", state.max_steps, done=state.global_step)
            self.bar.__enter__()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Counts the step."""
        if self.bar:
            self.bar.advance(f"loss {self.last.get('loss', math.nan):.4f}")

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Appends one row.

        Raises:
            UserError: the gradient norm is NaN or infinite.
        """
        values = {name: float(logs[name]) for name in LOGGED if name in (logs or {})}
        if "loss" not in values:
            return
        values["num_tokens"] = int(values.get("num_tokens", 0)) + self._tokens_before
        require_finite("gradient norm", values.get("grad_norm", 0.0), state.global_step, Path(args.output_dir))
        self.last = {"step": state.global_step, **values, "seconds": round(time.monotonic() - self._started, 1)}
        if state.is_world_process_zero:
            with self.path.open("a", encoding="utf-8", newline="\n") as file:
                file.write(dump_row(self.last) + "\n")

    def totals(self) -> dict[str, float]:
        """Last loss and tokens seen, for the closing line; empty on ranks that have logged nothing."""
        return {"loss": round(self.last["loss"], 4), "tokens": self.last["num_tokens"]} if self.last else {}

    def close(self, error: BaseException | None = None) -> None:
        """Ends the progress bar."""
        if self.bar:
            self.bar.__exit__(type(error) if error else None, error, None)


def load_processor(config: SftConfig) -> Any:
    """The checkpoint's processor with the configured picture limits.

    Raises:
        UserError: it cannot be loaded, or has no chat template.
    """
    try:
        processor = AutoProcessor.from_pretrained(config.model)
    except (OSError, ValueError) as error:
        raise UserError(f"no processor in {config.model}: {error}; it needs tokenizer and processor files") from error
    if not hasattr(processor, "image_processor") or not processor.chat_template:
        raise UserError(f"{config.model} has no image processor or no chat template; use a Qwen2.5-VL checkpoint")
    size = dict(processor.image_processor.size)
    limits = {"shortest_edge": config.images.min_pixels, "longest_edge": config.images.max_pixels}
    processor.image_processor.size = size | {name: value for name, value in limits.items() if value}
    return processor


def load_model(config: SftConfig, folder: str) -> Any:
    """The model of a folder or hub name in the precision to train in, with the frozen parts frozen.

    Raises:
        UserError: it cannot be loaded, or lacks a part that is to be frozen.
    """
    # Mixed precision keeps the weights in fp32; DeepSpeed keeps its own fp32 copy of bf16 weights.
    half = config.training.precision == "bf16" and config.training.zero_stage > 0
    try:
        dtype = torch.bfloat16 if half else torch.float32
        model = AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype)
    except (OSError, ValueError) as error:
        raise UserError(f"model {folder} cannot be loaded: {error}; check the folder or the name") from error
    freeze(model, config.freeze)
    return model


def freeze(model: Any, parts: FreezeConfig) -> None:
    """Switches off gradients of the vision tower and of the projector (its merger), each by its own flag."""
    tower = getattr(model.model, "visual", None)
    projector = getattr(tower, "merger", None)
    if (parts.vision_tower or parts.projector) and projector is None:
        raise UserError(
            f"{type(model).__name__} has no visual.merger to freeze beside its tower; set freeze.* to false"
        )
    if tower is not None and projector is not None:
        projector_parameters = {id(parameter) for parameter in projector.parameters()}
        for parameter in tower.parameters():
            frozen = parts.projector if id(parameter) in projector_parameters else parts.vision_tower
            parameter.requires_grad_(not frozen)


def trl_config(config: SftConfig) -> TrlConfig:
    """Our config in TRL's terms."""
    training = config.training
    steps = {} if training.save_every == "epoch" else {"save_steps": training.save_every}
    return TrlConfig(
        output_dir=str(Path(config.output) / "trainer"),
        num_train_epochs=training.epochs,
        per_device_train_batch_size=training.per_device_batch_size,
        gradient_accumulation_steps=training.gradient_accumulation,
        learning_rate=training.learning_rate,
        weight_decay=training.weight_decay,
        lr_scheduler_type=training.scheduler,
        warmup_steps=training.warmup_ratio,  # below 1: a share of all steps
        max_grad_norm=training.max_grad_norm,
        bf16=training.precision == "bf16",
        use_cpu=config.device == "cpu",
        gradient_checkpointing=training.gradient_checkpointing,
        deepspeed=deepspeed_config(training.zero_stage) if training.zero_stage else None,
        save_strategy="epoch" if training.save_every == "epoch" else "steps",
        save_total_limit=training.keep_checkpoints,
        logging_steps=training.log_every,
        logging_nan_inf_filter=False,
        dataloader_num_workers=training.data_workers,
        report_to=list(training.trackers) or "none",
        seed=config.seed,
        max_length=None,  # rows are cut by whole turns before they come here
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        disable_tqdm=True,
        ddp_find_unused_parameters=False,  # the collator lets every part run in every step
        **steps,
    )


def deepspeed_config(stage: int) -> dict[str, Any]:
    """ZeRO with everything else taken from the trainer's own settings."""
    zero = {"stage": stage, "overlap_comm": True, "contiguous_gradients": True}
    if stage == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    batch = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping")
    return {"zero_optimization": zero, "bf16": {"enabled": "auto"}, **dict.fromkeys(batch, "auto")}


def train(config: SftConfig, processor: Any, rows: list[dict[str, Any]]) -> dict[str, float]:
    """Trains from the last whole checkpoint, or from the start, and writes `output/checkpoint`.

    Returns:
        `steps` done in all, `loss` of the last logged step and `tokens` seen, over all interruptions.
    """
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    output = Path(config.output)
    arguments = trl_config(config)  # before the model: ZeRO-3 shards it while loading
    resume = _same_on_all_ranks(last_checkpoint(output / "trainer") if arguments.process_index == 0 else None)
    log = LogCallback(output / "log.jsonl")
    trainer = GuardedTrainer(
        # Transformers 5.9 saves this model under its hub names but resumes by its module names, not strictly: it would
        # go on from the first weights without a word. So the weights come from the checkpoint here.
        model=load_model(config, str(resume or config.model)),
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        data_collator=DialogueCollator(processor),
        processing_class=processor,
        callbacks=[log],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    if trainer.is_world_process_zero():
        log.rewind(int(resume.name.rpartition("-")[2]) if resume else 0)
    try:
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    except BaseException as error:
        log.close(error)
        raise
    log.close()
    save(trainer, processor, config.model, output / "checkpoint")
    return {"steps": trainer.state.global_step, **log.totals()}


def _same_on_all_ranks(path: Path | None) -> Path | None:
    if not torch.distributed.is_initialized():
        return path
    shared = [path]
    torch.distributed.broadcast_object_list(shared, src=0)
    return shared[0]


def save(trainer: SFTTrainer, processor: Any, source: str, folder: Path) -> None:
    """Writes a folder that loads with `from_pretrained`: weights, tokenizer, processor, chat template.

    The trainer changes the model's configs for its own ends (no cache, other end tokens); those of `source` are kept.
    """
    new = folder.with_name(folder.name + ".new")
    trainer.save_model(str(new))
    if trainer.is_world_process_zero():
        processor.save_pretrained(new)
        model_config = AutoConfig.from_pretrained(source)
        model_config.dtype = trainer.model.dtype
        model_config.save_pretrained(new)
        try:
            GenerationConfig.from_pretrained(source).save_pretrained(new)
        except OSError:  # a checkpoint may come without one
            (new / "generation_config.json").unlink(missing_ok=True)
        (new / "training_args.bin").unlink(missing_ok=True)
        replace_folder(new, folder)
