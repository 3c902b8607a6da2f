"""Assembly of the splits.

Input: `dialogues.jsonl`, `bootstrapped.jsonl`.
Output: `steer_sft.jsonl`, `steer_rl.jsonl`, `steer_bench/<benchmark>.jsonl` with its own pictures, `stats.json` with
its tables in `stats.md` and the histogram of turns in `turns.png`.

Deterministic in the rows and the config; takes no model, so it may be repeated with other sizes in the same folder.
"""

import json
import shutil
from collections import defaultdict
from pathlib import Path

from data_construction import stage_one, stage_two
from data_construction.assemble.select import Pools, select, without_shared
from data_construction.assemble.stats import keep_stats, reject_stats
from data_construction.config import DataConfig
from data_construction.seeds import ingested_seeds
from data_construction.stats.attacks import attack_stats
from data_construction.stats.counts import DialogueCounts
from data_construction.stats.write import write_stats
from safer_steer.dialogue import Dialogue
from safer_steer.errors import UserError
from safer_steer.runs import Run
from safer_steer.store import read_jsonl, write_jsonl

RECORD = "run.json"
KEPT_META = ("task", "seed", "split", "benchmark", "technique", "template", "generated_attack", "success_turn")


def run_assemble(config: DataConfig) -> None:
    """Writes the splits; does nothing when they are there already, made with the same settings.

    Raises:
        UserError: an earlier step is not finished, or a split that was asked for has no row.
    """
    folder, inputs = config.folder, {"dialogues": config.folder / "dialogues.jsonl"}
    stage_two.require_finished(folder, stage_one.RECORD, "stage1")
    if config.assemble.sft.origin == "bootstrapped":
        stage_two.require_finished(folder, stage_two.RECORD, "stage2")
        inputs["bootstrapped"] = folder / stage_two.KEPT
    facts = config.facts("assemble")
    _forget_other_settings(folder / RECORD, facts.model_dump(mode="json"))
    with Run.open(folder, facts, stage="assemble", inputs=inputs, file=RECORD) as run:
        if run.finished:
            run.say_finished()
            return
        stats = assemble(config)
        run.finish({name: stats["splits"][name]["size"] for name in ("sft", "rl", "bench")})


def assemble(config: DataConfig) -> dict:
    """Selects and writes the splits and their stats; returns the stats."""
    folder, settings = config.folder, config.assemble
    dialogues = list(read_jsonl(folder / "dialogues.jsonl", Dialogue))
    pools = Pools.of(config, ingested_seeds(folder))
    bootstrapped = list(read_jsonl(folder / stage_two.KEPT, Dialogue)) if settings.sft.origin == "bootstrapped" else []
    answered = [row for row in dialogues if all(turn.assistant for turn in row.turns)]
    candidates = (
        [row for row in bootstrapped if row.meta["keep"]] if settings.sft.origin == "bootstrapped" else answered
    )

    sft, sft_short = select((row for row in candidates if pools.pool(row) == "sft"), settings.sft, config.seed, "sft")
    for_rl = without_shared([row for row in dialogues if pools.pool(row) == "rl"], sft)
    rl, rl_short = select(for_rl, settings.rl, config.seed, "rl")
    bench, bench_short = select(
        (row for row in dialogues if pools.pool(row) == "bench"), settings.bench, config.seed, "bench"
    )
    for name, rows, split in (("sft", sft, settings.sft), ("rl", rl, settings.rl), ("bench", bench, settings.bench)):
        if split.size and not rows:
            raise UserError(
                f"assemble.{name}: none of {split.size} rows could be found; see rejects.jsonl, or set its size to 0"
            )

    for name, rows in (("sft", sft), ("rl", [_questions_only(row) for row in rl])):
        path = folder / f"steer_{name}.jsonl"
        path.unlink(missing_ok=True)
        if rows:
            write_jsonl(path, map(_clean, rows))
    _write_bench(folder, bench)

    rejects = list(read_jsonl(folder / "rejects.jsonl"))
    stage_two_rejects = list(read_jsonl(folder / stage_two.REJECTS)) if (folder / stage_two.REJECTS).is_file() else []
    short = {"sft": sft_short, "rl": rl_short, "bench": bench_short}
    splits = {"sft": DialogueCounts.of(sft), "rl": DialogueCounts.of(rl), "bench": DialogueCounts.of(bench)}
    candidates = read_jsonl(folder / stage_one.CANDIDATES, Dialogue)
    stats = {
        "splits": {name: split.as_dict() for name, split in splits.items()},
        "short": {name: missing for name, missing in short.items() if missing},
        "stage1": DialogueCounts.of(dialogues).as_dict() | {"rejects": reject_stats(rejects)},
        "train_rows_with_a_bench_picture": sum(pools.pool(row) == "none" for row in dialogues),
        "red_team": attack_stats(candidates, rejects),
        "keep_rule": keep_stats(bootstrapped),
        "stage2_rejects": reject_stats(stage_two_rejects),
        "usage": _usage(folder),
    }
    write_stats(folder, stats, splits, "STEER")
    return stats


def _usage(folder: Path) -> dict[str, dict]:
    """What the earlier steps' roles were called for, from their records."""
    found = {}
    for step, record in (("stage1", stage_one.RECORD), ("stage2", stage_two.RECORD)):
        path = folder / record
        usage = json.loads(path.read_text(encoding="utf-8"))["usage"] if path.is_file() else {}
        found |= {f"{step} {role}": numbers for role, numbers in usage.items()}
    return found


def _write_bench(folder: Path, rows: list[Dialogue]) -> None:
    target = folder / "steer_bench"
    shutil.rmtree(target, ignore_errors=True)
    by_benchmark: dict[str, list[Dialogue]] = defaultdict(list)
    for row in rows:
        by_benchmark[row.meta["benchmark"]].append(row)
        for picture in row.images:
            (target / picture).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / picture, target / picture)
    for benchmark, members in sorted(by_benchmark.items()):
        write_jsonl(target / f"{benchmark}.jsonl", (_clean(_questions_only(row)) for row in members))


def _questions_only(row: Dialogue) -> Dialogue:
    turns = [turn.model_copy(update={"assistant": None, "scores": None}) for turn in row.turns]
    return row.model_copy(update={"turns": turns})


def _clean(row: Dialogue) -> Dialogue:
    """Without what belongs to the making of the row, such as the transcript of its attack."""
    return row.model_copy(update={"meta": {key: row.meta[key] for key in KEPT_META if row.meta.get(key) is not None}})


def _forget_other_settings(record: Path, facts: dict) -> None:
    if record.is_file() and json.loads(record.read_text(encoding="utf-8"))["facts"]["config"] != facts:
        record.unlink()
