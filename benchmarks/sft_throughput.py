"""How fast SFT is next to plain TRL on the same rows: tokens per second, peak memory, share of padding.

Output: a table, and the same as JSON. Both train the same tiny Qwen2.5-VL in fp32 on a CPU, one epoch, same batch size:
    ours   training.sft as it is run: rows encoded beforehand, batches of like length, labels on answers only
    TRL    SFTTrainer with its own collator on the `messages` export: encoding in the batch, batches at random
    python -m benchmarks.sft_throughput [--out outputs/benchmarks/sft_throughput.json] [--rows 256] [--rounds 2]

Tokens are those of the rows, padding not counted; the time is the training loop's, without loading. Each side runs in
a process of its own, in turns, so that other work on the machine weighs on both; the median of the ratios counts.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, peak_mib, write_figures

BATCH = 8
SEED = 0
TEXT_ONLY_EVERY = 8  # rows
SIDES = ("ours", "TRL")


def build_world(root: Path, rows: int) -> None:
    """Writes a tiny checkpoint, dialogues of 1 to 10 turns about pictures (some without), and their TRL export."""
    import torch

    from exports.config import ExportConfig
    from exports.run import main as export
    from miniature.student import build_model, build_processor
    from miniature.warm_up import warm_up_dialogue
    from safer_steer.config import load_config
    from safer_steer.dialogue import Dialogue, Turn
    from safer_steer.images import ImageStore
    from safer_steer.store import write_jsonl

    torch.manual_seed(SEED)
    processor = build_processor()
    build_model(processor.tokenizer).save_pretrained(root / "base")
    processor.save_pretrained(root / "base")
    draw, store, made = random.Random(SEED), ImageStore(root / "data"), []
    for number in range(rows):
        picture, turns = warm_up_dialogue(draw)
        while len(turns) < 1 + number % 10:
            turns += warm_up_dialogue(draw)[1]
        images = [] if number % TEXT_ONLY_EVERY == 0 else [store.put(picture)]
        said = [Turn(user=user, assistant=answer) for user, answer in turns[: 1 + number % 10]]
        row = Dialogue(id=f"row-{number}", source="bench", kind="benign", strategy=None, images=images, turns=said)
        made.append(row)
    write_jsonl(root / "data" / "steer_sft.jsonl", made)
    overrides = [f"root={root}", "formats=[messages]", "answer_format={}"]
    export(load_config(ExportConfig, "configs/exports/default.yaml", overrides))


class Meter:
    """Counts the tokens of the batches that a collator makes, and the padding among them."""

    def __init__(self, collator: Any):
        self.collator, self.tokens, self.places = collator, 0, 0

    def __call__(self, rows: list[dict[str, Any]]) -> Any:
        """The collator's batch."""
        batch = self.collator(rows)
        self.tokens += int(batch["attention_mask"][: len(rows)].sum())  # a blank picture's row is not work done
        self.places += batch["attention_mask"].numel()
        return batch


def run_ours(root: Path, output: Path) -> tuple[Any, Meter]:
    """A trainer of `training.sft` on the rows."""
    from safer_steer.config import load_config
    from training.sft.arguments import trl_config
    from training.sft.config import SftConfig
    from training.sft.data import prepare
    from training.sft.model import load_processor
    from training.sft.trainer import build_trainer

    overrides = [f"root={root}", f"output={output}", f"training.batch_size={BATCH}", "training.length_grouped=true"]
    overrides += [f"training.per_device_batch_size={BATCH}", "training.epochs=1", "training.save_every=100000"]
    config = load_config(SftConfig, "configs/sft/miniature.yaml", overrides)
    output.mkdir(parents=True)
    processor = load_processor(config)
    trainer = build_trainer(config, trl_config(config), processor, prepare(config, processor)).trainer
    trainer.data_collator = meter = Meter(trainer.data_collator)
    return trainer, meter


def run_trl(root: Path, output: Path) -> tuple[Any, Meter]:
    """Plain TRL on the export of the rows."""
    from datasets import Dataset
    from transformers import AutoModelForImageTextToText, AutoProcessor
    from trl import SFTConfig, SFTTrainer

    rows = Dataset.from_parquet(str(root / "exports" / "messages" / "messages.parquet"), cache_dir=str(root / "cache"))
    arguments = SFTConfig(
        output_dir=str(output),
        num_train_epochs=1,
        per_device_train_batch_size=BATCH,
        learning_rate=7e-4,
        weight_decay=0.01,
        lr_scheduler_type="cosine",
        warmup_steps=0.1,
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        max_length=None,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=SEED,
    )
    trainer = SFTTrainer(
        model=AutoModelForImageTextToText.from_pretrained(root / "base"),
        args=arguments,
        train_dataset=rows.remove_columns("id"),
        processing_class=AutoProcessor.from_pretrained(root / "base"),
    )
    trainer.data_collator = meter = Meter(trainer.data_collator)
    return trainer, meter


def measure(side: str, root: Path, output: Path) -> dict[str, float]:
    """Trains one epoch in this process and gives its figures."""
    trainer, meter = (run_ours if side == "ours" else run_trl)(root, output)
    started = time.monotonic()
    trainer.train()
    seconds = time.monotonic() - started
    return {
        "tokens": meter.tokens,
        "seconds": round(seconds, 2),
        "tokens_per_s": round(meter.tokens / seconds, 1),
        "padding_share": round(1 - meter.tokens / meter.places, 4),
        "peak_mib": round(peak_mib(), 1),
    }


def compare(root: Path, rounds: int) -> dict[str, Any]:
    """Runs both sides in turns, the first round's order reversed in the next."""
    found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for number in range(rounds):
        for side in SIDES if number % 2 == 0 else SIDES[::-1]:
            output = root / f"{side}-{number}"
            command = [sys.executable, "-m", "benchmarks.sft_throughput", "--side", side, "--world", str(root)]
            shown = subprocess.run([*command, "--run", str(output)], stdout=subprocess.PIPE, text=True, check=True)
            found[side].append(json.loads(shown.stdout.splitlines()[-1]))
    if found["ours"][0]["tokens"] != found["TRL"][0]["tokens"]:
        raise SystemExit(f"error: the sides saw different tokens: {found}")
    ratios = [ours["tokens_per_s"] / trl["tokens_per_s"] for ours, trl in zip(*found.values(), strict=True)]
    return {"rounds": found, "ratio": round(statistics.median(ratios), 3), "target": 1.0}


def table(result: dict[str, Any]) -> str:
    """The result as text."""
    lines = [f"{'':6}{'tokens/s':>10}{'padding':>10}{'peak MiB':>10}"]
    for side, rounds in result["rounds"].items():
        best = [
            statistics.median(item[key] for item in rounds) for key in ("tokens_per_s", "padding_share", "peak_mib")
        ]
        lines.append(f"{side:6}{best[0]:>10.0f}{best[1]:>10.1%}{best[2]:>10.0f}")
    return "\n".join([*lines, f"ratio ours / TRL {result['ratio']:.2f} (target >= {result['target']})"])


def figures(result: dict[str, Any]) -> list[Figure]:
    """Medians of both sides."""
    ours, trl = (
        {key: statistics.median(item[key] for item in rounds) for key in ("tokens_per_s", "padding_share", "peak_mib")}
        for rounds in result["rounds"].values()
    )
    speed = ours["tokens_per_s"], "plain TRL", trl["tokens_per_s"]
    return [
        Figure("SFT speed", "tokens/s", *speed, result["target"], ratio=result["ratio"]),
        Figure("padding of batches", "share", ours["padding_share"], "plain TRL", trl["padding_share"], None, "lower"),
        Figure("peak memory", "MiB", ours["peak_mib"], "plain TRL", trl["peak_mib"], None, "lower"),
    ]


def main() -> int:
    """Command line; returns 1 when ours is slower than TRL."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks/sft_throughput.json"))
    parser.add_argument("--rows", type=int, default=256, help="dialogues")
    parser.add_argument("--rounds", type=int, default=2, help="times each side runs")
    for name in ("--side", "--world", "--run"):
        parser.add_argument(name, help=argparse.SUPPRESS)  # one side, in its own process
    given = parser.parse_args()
    if given.side:
        print(json.dumps(measure(given.side, Path(given.world), Path(given.run))))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        build_world(Path(folder), given.rows)
        result = compare(Path(folder), given.rounds)
    print(table(result))
    settings = {"rows": given.rows, "rounds": given.rounds}
    return write_figures(given.out, "sft_throughput", figures(result), settings=settings, details=result["rounds"])


if __name__ == "__main__":
    sys.exit(main())
