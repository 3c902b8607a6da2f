"""Writes finished dialogues in other trainers' formats: TRL `messages`, LLaMA-Factory ShareGPT, verl parquet.

Input: `steer_sft.jsonl` (Dialogue rows; for verl `steer_rl.jsonl`). Output in `output/`: a folder for each format,
`rejects.jsonl`, `run.json`.

    bash scripts/run_export.sh [CONFIG] [key=value ...] [--dry-run]
    python -m training.exports.run configs/exports/default.yaml formats=[llama_factory]
"""

if __name__ == "__main__":  # before the imports below, which take seconds
    from safer_steer import interrupts

    interrupts.watch()

import shutil
from pathlib import Path
from typing import Any

from safer_steer.cli import run_cli
from safer_steer.errors import UserError
from safer_steer.picture_digest import dialogue_pictures
from safer_steer.plan import Plan
from safer_steer.runs import Run
from safer_steer.store import write_jsonl
from training.exports.config import ExportConfig

DEFAULT_CONFIG = "configs/exports/default.yaml"


def plan(config: ExportConfig) -> Plan:
    """What an export would write."""
    there = "" if Path(config.data).is_file() else " (not there yet; the data construction stage writes it)"
    tags = " ".join(f"<{tag}>" for tag in config.tags_written) or "none"
    lines = [f"reads {config.data}{there}; answer tags written: {tags}"]
    return Plan(lines + [f"writes {config.output}/{name}/" for name in config.formats])


def main(config: ExportConfig) -> None:
    """Exports, or does nothing when that has been done already.

    Raises:
        UserError: the file is missing, or no row is usable.
    """
    contents = {"pictures": dialogue_pictures(config.data)}
    with Run.open(config.output, config, stage="export", inputs={"data": config.data}, contents=contents) as run:
        if run.finished:
            return run.say_finished()
        run.finish(_write(config, Path(config.output)))
    return None


def _write(config: ExportConfig, output: Path) -> dict[str, Any]:
    from training.answers import most_frequent
    from training.exports import llama_factory, messages, verl_parquet
    from training.exports.rows import Rows

    counts: dict[str, Any] = {}
    rows = Rows(config)
    for name in config.formats:
        folder = output / name
        folder.mkdir(parents=True, exist_ok=True)
        if name == "verl":
            found = verl_parquet.write(config, folder)
            counts |= {"verl rows": found["kept"], "verl rejected": found["rejected"]}
            continue
        {"messages": messages, "llama_factory": llama_factory}[name].write(rows, folder, config.answer_format.system)
        write_jsonl(output / "rejects.jsonl", rows.rejects)
        if not rows.kept:
            reasons = ", ".join(f"{count} {reason}" for reason, count in rows.counts().items() if reason[0] == "(")
            shutil.rmtree(folder)
            advice = most_frequent([reject.get("advice", "") for reject in rows.rejects])
            raise UserError(f"{config.data}: no row can be exported: {reasons or 'the file is empty'}; {advice}")
        counts |= rows.counts()
    return counts


if __name__ == "__main__":
    run_cli(__doc__, ExportConfig, plan, main, DEFAULT_CONFIG)
