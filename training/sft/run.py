"""SFT (Sec. 4.3, Eq. 16): fine-tunes a vision-language checkpoint on bootstrapped dialogues, loss on answers only.

Input: a checkpoint and `steer_sft.jsonl` (Dialogue rows). Output in `output/`: `checkpoint/` (loads with
from_pretrained and serves in vLLM; LoRA's adapter is in `adapter/` and merged here), `trainer/checkpoint-N` (for
resuming), `log.jsonl`, `eval.jsonl`, `loss.png`, `rejects.jsonl`, `run.json`.

    bash scripts/run_sft.sh [CONFIG] [key=value ...] [--dry-run]
    python -m training.sft.run configs/sft/miniature.yaml training.epochs=1
"""

if __name__ == "__main__":  # before the imports below, which take seconds
    from safer_steer import interrupts

    interrupts.watch()

import math
import os
from functools import partial
from pathlib import Path

from safer_steer.cli import run_cli
from safer_steer.errors import UserError
from safer_steer.failures import is_out_of_memory
from safer_steer.machine import plan_lines, require
from safer_steer.picture_digest import dialogue_pictures
from safer_steer.plan import Plan
from safer_steer.runs import Run, is_finished
from safer_steer.store import write_jsonl
from safer_steer.weights import is_hub_id
from training import ablations
from training.sft.checks import problems_before_start
from training.sft.config import SftConfig
from training.sft.needs import needs

DEFAULT_CONFIG = "configs/sft/qwen2_5_vl_3b.yaml"
LESS_MEMORY = (
    "lower training.per_device_batch_size and raise training.gradient_accumulation as much, lower max_length or "
    "images.max_pixels, or split the model (training.deepspeed), with another output folder: these belong to the run's "
    "configuration; a GPU that others fill needs no change, then the same command continues from the last checkpoint"
)


def plan(config: SftConfig) -> Plan:
    """What a run would do."""
    training = config.training
    lines = [
        f"model {config.model}, {config.device}, {training.precision}; "
        + (f"LoRA of rank {config.lora.rank}" if config.lora else "all weights")
        + (f", ZeRO-{training.zero_stage}" if training.deepspeed else "")
        + "; frozen: "
        + (", ".join(name for name, frozen in config.freeze if frozen) or "nothing"),
        f"batch {training.batch_size} = {training.per_device_batch_size} a device x {training.gradient_accumulation} "
        f"accumulated x {training.processes} process(es)",
    ]
    lines.append(f"answers: {config.answer_format.said()}")
    data = Path(config.data)
    if data.is_file():
        with data.open("rb") as file:
            rows = sum(1 for _ in file)
        steps = training.epochs * math.ceil(rows / training.batch_size)
        lines.append(f"{rows} rows in {data}: at most {steps} steps in {training.epochs} epoch(s)")
    else:
        lines.append(f"{data} is not there yet; the data construction stage writes it")
    return Plan([*lines, f"writes {config.output}/checkpoint", *plan_lines(needs(config))])


def inputs(config: SftConfig) -> dict[str, Path]:
    """What the result depends on; a model on the hub is named by the config."""
    return {"data": Path(config.data)} | ({} if is_hub_id(config.model) else {"model": Path(config.model)})


def main(config: SftConfig) -> int:
    """Runs, resumes or does nothing; returns the exit code."""
    problems = problems_before_start(config, int(os.environ.get("WORLD_SIZE", "1")))
    if problems:
        raise UserError("; ".join(problems))
    if int(os.environ.get("RANK", "0")) > 0:
        if not _is_finished(config):  # else this rank would wait for the first one, which has nothing to do
            _work(config)
        return 0
    contents = {"pictures": dialogue_pictures(config.data)}
    with Run.open(config.output, config, stage="sft", inputs=inputs(config), contents=contents) as run:
        if run.finished:
            run.say_finished()
            return 0
        require(needs(config))
        try:
            counts = _work(config)
        except (MemoryError, RuntimeError) as error:  # torch's own error for a full GPU is a RuntimeError
            if not is_out_of_memory(error):
                raise
            said = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
            raise UserError(f"training ran out of memory ({said}); {LESS_MEMORY}") from error
        run.finish(counts)
    return 0


def _is_finished(config: SftConfig) -> bool:
    """What the first rank's record says; it cannot become finished before this rank has done its part."""
    return is_finished(Path(config.output) / "run.json")


def _work(config: SftConfig) -> dict[str, float]:
    """Prepares and trains; engines are imported here, so that --help, --dry-run and a finished run stay quick."""
    if config.device == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # else DeepSpeed warns that it found no GPU
    import torch

    from training.sft.data import prepare
    from training.sft.model import load_processor
    from training.sft.trainer import train

    if config.device == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "device is cuda, but no GPU is visible; check nvidia-smi, or set device=cpu training.precision=fp32"
        )
    processor = load_processor(config)
    prepared = prepare(config, processor)
    if int(os.environ.get("RANK", "0")) == 0:
        write_jsonl(Path(config.output) / "rejects.jsonl", prepared.rejects)
        config.answer_format.write(Path(config.output))  # for adapters that are merged by hand
    counts = prepared.counts() | train(config, processor, prepared)
    if int(os.environ.get("RANK", "0")) == 0:
        config.answer_format.write(Path(config.output) / "checkpoint")
    if torch.distributed.is_initialized():  # else its threads may abort a process that ends
        torch.distributed.destroy_process_group()
    return counts


if __name__ == "__main__":
    run_cli(__doc__, SftConfig, plan, main, DEFAULT_CONFIG, expand=partial(ablations.expand, "sft"))
