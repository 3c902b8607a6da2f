"""TRL's `SFTTrainer` on encoded dialogues: NaN guard, row order, held-out loss, exact resume.

Input: an `SftConfig` and prepared rows. Output: `trainer/checkpoint-N`, the log, `checkpoint/`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from datasets import Dataset
from transformers import TrainerCallback
from trl import SFTTrainer

from safer_steer.errors import UserError
from training.sft.arguments import trl_config
from training.sft.checkpoints import last_checkpoint
from training.sft.collator import DialogueCollator
from training.sft.config import SftConfig
from training.sft.data import Prepared
from training.sft.encode import IGNORED
from training.sft.log import LogCallback, require_finite
from training.sft.model import load_model, lora_config
from training.sft.sampler import LengthGroupedSampler
from training.sft.save import ExportCallback
from training.sft.watch import StallWatch


class DialogueTrainer(SFTTrainer):
    """`SFTTrainer` with our row order and held-out loss; stops on the first loss or norm that is not a number."""

    def __init__(
        self,
        *args: Any,
        sampler: LengthGroupedSampler | None,
        held_out: list[dict[str, Any]],
        watch: StallWatch,
        **kwargs: Any,
    ):
        self.sampler, self.held_out, self.watch = sampler, held_out, watch
        super().__init__(*args, **kwargs)
        # Transformers says no for these models: every forward pass would weigh the same, however few label tokens it
        # has. TRL's loss divides by the label tokens of the whole batch, over accumulation and ranks, when told.
        self.model_accepts_loss_kwargs = True

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> torch.utils.data.Sampler:
        return self.sampler or super()._get_train_sampler(train_dataset)

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        """One forward pass.

        Raises:
            UserError: the loss is NaN or infinite; nothing has reached the weights yet.
        """
        loss = super().compute_loss(*args, **kwargs)
        self.watch.beat()
        if self.model.training:
            require_finite("loss", loss.item(), self.state.global_step + 1, Path(self.args.output_dir))
        return loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """Called before every optimizer step (under DeepSpeed after it, before any export).

        Raises:
            UserError: the norm is NaN or infinite.
        """
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        if norm is not None:
            require_finite("gradient norm", float(norm), self.state.global_step + 1, Path(self.args.output_dir))
        return norm

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """The mean loss a label token over the held-out rows, whatever the batch size and the number of processes.

        A rank that has run out of rows computes a blank picture: under ZeRO-3 all ranks must take every step.
        """
        model, size = self.model_wrapped, self.args.per_device_eval_batch_size
        model.eval()
        first, stride = self.args.process_index * size, self.args.world_size * size
        sums = torch.zeros(2, dtype=torch.float64)
        for start in range(first, first + len(self.held_out), stride):
            batch = self._prepare_inputs(self.data_collator(self.held_out[start : start + size]))
            count = int((batch["labels"][:, 1:] != IGNORED).sum())
            with torch.no_grad(), self.compute_loss_context_manager():
                sums += torch.tensor([self.compute_loss(model, batch).item() * count, count], dtype=torch.float64)
        total, count = self.accelerator.reduce(sums.to(self.args.device), "sum").tolist()
        metrics = {"eval_loss": total / count}
        self.log(metrics)
        model.train()
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


class EpochCallback(TrainerCallback):
    """Tells the sampler which epoch it is, also after resuming."""

    def __init__(self, sampler: LengthGroupedSampler):
        self.sampler = sampler

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Sets the epoch before its first row is drawn."""
        self.sampler.epoch = int(state.epoch or 0)


@dataclass(frozen=True)
class Built:
    """A trainer with the callbacks that are asked for afterwards."""

    trainer: DialogueTrainer
    log: LogCallback
    export: ExportCallback
    watch: StallWatch


def build_trainer(
    config: SftConfig, arguments: Any, processor: Any, prepared: Prepared, resume: Path | None = None
) -> Built:
    """The trainer, with the weights of `resume` (a trainer checkpoint) or of `config.model`.

    `arguments` are those of `trl_config`, made before the model is loaded: ZeRO-3 splits it while loading.
    """
    output, training = Path(config.output), config.training
    log = LogCallback(output)
    export = ExportCallback(training.export_epoch or training.epochs, config.model, processor, output / "checkpoint")
    watch = StallWatch(training.stall_s, output)
    sampler, callbacks = None, [log, export, watch]
    if training.length_grouped:
        lengths = [len(row["input_ids"]) for row in prepared.rows]
        sampler = LengthGroupedSampler(lengths, training.per_device_batch_size * training.processes, config.seed)
        callbacks.append(EpochCallback(sampler))
    # Transformers 5.9 saves this model under its hub names but resumes by its module names, not strictly: it would go
    # on from the first weights without a word. So the weights come from the checkpoint here; an adapter it does resume.
    model = load_model(config, config.model if config.lora or not resume else str(resume))
    trainer = DialogueTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(prepared.rows),
        eval_dataset=Dataset.from_list(prepared.held_out) if prepared.held_out else None,
        data_collator=DialogueCollator(processor),
        processing_class=processor,
        peft_config=lora_config(config, model),
        callbacks=callbacks,
        sampler=sampler,
        held_out=prepared.held_out,
        watch=watch,
    )
    trainer.remove_callback(transformers.PrinterCallback)
    export.trainer = trainer
    return Built(trainer, log, export, watch)


def train(config: SftConfig, processor: Any, prepared: Prepared) -> dict[str, float]:
    """Trains from the last whole checkpoint, or from the start, and writes `output/checkpoint`.

    Returns:
        `steps` done in all, `loss` of the last logged step and `tokens` seen, over all interruptions.
    """
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    arguments = trl_config(config)
    first = arguments.process_index == 0
    resume = _same_on_all_ranks(last_checkpoint(Path(config.output) / "trainer") if first else None)
    built = build_trainer(config, arguments, processor, prepared, resume)
    if first:
        built.log.rewind(int(resume.name.rpartition("-")[2]) if resume else 0)
    built.watch.start()
    try:
        _train(built, resume)
    except UserError:
        raise
    except BaseException as error:  # an operation with a lost rank fails, and the launcher interrupts even what follows
        if lost := built.watch.lost_rank():
            raise UserError(lost) from error
        raise
    return {"steps": built.trainer.state.global_step, **built.log.totals()}


def _train(built: Built, resume: Path | None) -> None:
    try:
        built.trainer.train(resume_from_checkpoint=str(resume) if resume else None)
        _require_export(built.trainer, built.export)
    except BaseException as error:
        built.watch.stop()
        built.log.close(error)
        raise
    built.watch.stop()
    built.log.close()


def _same_on_all_ranks(path: Path | None) -> Path | None:
    if not torch.distributed.is_initialized():
        return path
    shared = [path]
    torch.distributed.broadcast_object_list(shared, src=0)
    return shared[0]


def _require_export(trainer: SFTTrainer, export: ExportCallback) -> None:
    """Makes up for an exported folder that was taken away since its epoch ended.

    Raises:
        UserError: the weights of that epoch are gone.
    """
    there = _same_on_all_ranks(export.folder if (export.folder / "config.json").is_file() else None)
    if there:
        return
    if trainer.state.global_step != export.step(trainer.state):
        raise UserError(
            f"{export.folder} is missing and epoch {export.epoch} is over; remove the run folder and start again"
        )
    export.export()
