"""Weights -> a plain Hugging Face folder that `from_pretrained` and vLLM load; LoRA adapters are merged first.

Merging an adapter of an earlier epoch by hand, without a GPU:
    python -m training.sft.save BASE_MODEL ADAPTER_FOLDER TARGET_FOLDER [--dtype bfloat16|float32]
"""

if __name__ == "__main__":  # before the imports below, which take seconds
    from safer_steer import interrupts

    interrupts.watch()

import argparse
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, GenerationConfig, TrainerCallback
from transformers.integrations import deepspeed as transformers_deepspeed

from safer_steer.answer_format import AnswerFormat
from safer_steer.cli import exit_code
from safer_steer.errors import UserError
from training.sft.checkpoints import replace_folder


class ExportCallback(TrainerCallback):
    """Writes `checkpoint/` (and `adapter/` under LoRA) at the end of the epoch that is to be exported.

    It runs before the trainer's own checkpoint of the same step: a run killed in between does both again.
    """

    def __init__(self, epoch: int, source: str, processor: Any, folder: Path):
        self.epoch, self.source, self.processor, self.folder = epoch, source, processor, folder
        self.trainer: Any = None  # set once the trainer exists

    def step(self, state: Any) -> int:
        """The step that ends the epoch."""
        return state.max_steps // int(state.num_train_epochs) * self.epoch

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Exports when the epoch is over; all ranks take part, as ZeRO-3 gathers the weights."""
        if state.global_step == self.step(state):
            self.export()

    def export(self) -> None:
        """Writes the folder now."""
        if hasattr(self.trainer.accelerator.unwrap_model(self.trainer.model), "peft_config"):
            self._export_merged()
            return
        new = self.folder.with_name(self.folder.name + ".new")
        self.trainer.save_model(str(new))
        if self.trainer.is_world_process_zero():
            write_configs(new, self.source, self.processor, self.trainer.model.dtype)
            replace_folder(new, self.folder)

    def _export_merged(self) -> None:
        adapter = self.folder.with_name("adapter")
        new = adapter.with_name("adapter.new")
        self.trainer.save_model(str(new))
        if self.trainer.is_world_process_zero():
            (new / "training_args.bin").unlink(missing_ok=True)
            replace_folder(new, adapter)
            dtype = torch.bfloat16 if self.trainer.args.bf16 else torch.float32
            with _no_zero3(self.trainer.args):
                merge(self.source, adapter, self.folder, self.processor, dtype)


@contextmanager
def _no_zero3(args: Any) -> Any:
    """Loads a whole model on this rank, where ZeRO-3 would split it over ranks that do not take part."""
    transformers_deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        if args.deepspeed:
            transformers_deepspeed.set_hf_deepspeed_config(args.hf_deepspeed_config)


def merge(base: str, adapter: Path, folder: Path, processor: Any, dtype: torch.dtype) -> None:
    """Adds a LoRA adapter to its base model and writes a plain checkpoint.

    The sum is computed in fp32 and rounded once; memory holds the base in its own type, 2 bytes a parameter for bf16.

    Args:
        base: folder or hub name of the model the adapter was trained on.
        adapter: folder with `adapter_config.json`.
        folder: where the merged checkpoint goes; what is there is replaced whole.
        processor: the processor to write next to it.
        dtype: of the weights written.
    """
    model = AutoModelForImageTextToText.from_pretrained(base, dtype=dtype if dtype == torch.float32 else "auto")
    merged = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload().to(dtype)
    new = folder.with_name(folder.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    merged.save_pretrained(new)
    write_configs(new, base, processor, dtype)
    replace_folder(new, folder)


def write_configs(folder: Path, source: str, processor: Any, dtype: torch.dtype) -> None:
    """Puts processor, tokenizer, chat template and the model's configs next to the weights.

    The trainer changes the model's configs for its own ends (no cache, other end tokens); those of `source` are kept.
    """
    processor.save_pretrained(folder)
    model_config = AutoConfig.from_pretrained(source)
    model_config.dtype = dtype
    model_config.save_pretrained(folder)
    try:
        GenerationConfig.from_pretrained(source).save_pretrained(folder)
    except OSError:  # a checkpoint may come without one
        (folder / "generation_config.json").unlink(missing_ok=True)
    (folder / "training_args.bin").unlink(missing_ok=True)


def main(argv: list[str] | None = None) -> int:
    """Command line of merging; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, text in (("base", "folder or hub name"), ("adapter", "adapter folder"), ("target", "folder to write")):
        parser.add_argument(name, help=text)
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16", help="of the weights written")
    given = parser.parse_args(argv)
    return exit_code(lambda: _merge_by_hand(given))


def _merge_by_hand(given: argparse.Namespace) -> None:
    if not Path(given.adapter, "adapter_config.json").is_file():
        raise UserError(f"{given.adapter} holds no adapter_config.json; give RUN/adapter or RUN/trainer/checkpoint-N")
    # The trainer leaves its processor next to the adapter; it has the run's picture limits.
    beside = Path(given.adapter, "chat_template.jinja").is_file()
    processor = AutoProcessor.from_pretrained(given.adapter if beside else given.base)
    merge(given.base, Path(given.adapter), Path(given.target), processor, getattr(torch, given.dtype))
    for folder in Path(given.adapter).resolve().parents[:2]:  # of RUN/adapter and of RUN/trainer/checkpoint-N
        if answers := AnswerFormat.of_checkpoint(str(folder)):
            return answers.write(Path(given.target))
    return None


if __name__ == "__main__":
    sys.exit(main())
