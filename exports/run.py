"""Writes finished work in the formats of others: dialogues for TRL, LLaMA-Factory, ms-swift and verl; an evaluation as
logs of inspect_ai; a model card and a dataset card.

Input: Dialogue rows (`steer_sft.jsonl`; for verl `steer_rl.jsonl`), an evaluation's output, run folders. Output in
`output/`: a folder for each format, `rejects.jsonl`, `run.json`.

    bash scripts/run_export.sh [CONFIG] [key=value ...] [--dry-run]
    python -m exports.run configs/exports/default.yaml formats=[llama_factory]
"""

if __name__ == "__main__":  # before the imports below, which take seconds
    from safer_steer import interrupts

    interrupts.watch()

import shutil
from pathlib import Path
from typing import Any

from exports.config import ExportConfig
from safer_steer.cli import run_cli
from safer_steer.errors import UserError
from safer_steer.picture_digest import dialogue_pictures
from safer_steer.plan import Plan
from safer_steer.runs import Run
from safer_steer.store import write_jsonl

DEFAULT_CONFIG = "configs/exports/default.yaml"


def plan(config: ExportConfig) -> Plan:
    """What an export would write."""
    tags = " ".join(f"<{tag}>" for tag in config.tags_written) or "none"
    read = {config.data: f"; answer tags written: {tags}", config.evaluation: "", **dict.fromkeys(config.training, "")}
    lines = [
        f"reads {path}{'' if Path(path).exists() else ' (not there yet; its stage writes it)'}{note}"
        for path, note in read.items()
        if path
    ]
    return Plan(lines + [f"writes {config.output}/{name}/" for name in config.formats])


def main(config: ExportConfig) -> None:
    """Exports, or does nothing when that has been done already.

    Raises:
        UserError: the file is missing, no row is usable, or a run is not finished.
    """
    inputs, contents = _inputs(config)
    with Run.open(config.output, config, stage="export", inputs=inputs, contents=contents) as run:
        if run.finished:
            return run.say_finished()
        run.finish(_write(config, Path(config.output)))
    return None


def _inputs(config: ExportConfig) -> tuple[dict[str, Path], dict[str, str]]:
    """What the export depends on: files by name, and the digest of the rows' pictures."""
    files: dict[str, Path] = {}
    if config.evaluation:
        from exports import inspect_logs

        files |= inspect_logs.inputs(Path(config.evaluation))
    if {"model_card", "dataset_card"} & set(config.formats):
        from exports import cards

        files |= cards.inputs(config)
    if not {"messages", "llama_factory", "ms_swift", "verl"} & set(config.formats):
        return files, {}
    assert config.data
    return files | {"data": Path(config.data)}, {"pictures": dialogue_pictures(config.data)}


def _write(config: ExportConfig, output: Path) -> dict[str, Any]:
    counts: dict[str, Any] = {}
    for name in config.formats:
        folder = output / name
        if name == "verl":
            from exports import verl_parquet

            folder.mkdir(parents=True, exist_ok=True)
            found = verl_parquet.write(config, folder)
            counts |= {"verl rows": found["kept"], "verl rejected": found["rejected"]}
        elif name == "inspect":
            from exports import inspect_logs

            counts |= inspect_logs.write(Path(str(config.evaluation)), folder)
        elif name in ("model_card", "dataset_card"):
            from exports import cards

            counts |= {name.replace("_", " "): cards.write(name, config, folder)}
        else:
            counts |= _write_rows(name, config, folder)
    return counts


def _write_rows(name: str, config: ExportConfig, folder: Path) -> dict[str, Any]:
    from exports import llama_factory, messages
    from exports.rows import Rows
    from training.answers import most_frequent

    folder.mkdir(parents=True, exist_ok=True)
    rows = Rows(config)
    (llama_factory if name == "llama_factory" else messages).write(rows, folder, config.system_written)
    write_jsonl(folder.parent / "rejects.jsonl", rows.rejects)
    if not rows.kept:
        reasons = ", ".join(f"{count} {reason}" for reason, count in rows.counts().items() if reason[0] == "(")
        shutil.rmtree(folder)
        advice = most_frequent([reject.get("advice", "") for reject in rows.rejects])
        raise UserError(f"{config.data}: no row can be exported: {reasons or 'the file is empty'}; {advice}")
    return rows.counts()


if __name__ == "__main__":
    run_cli(__doc__, ExportConfig, plan, main, DEFAULT_CONFIG)
