"""Assembly of the splits.

Input: `dialogues.jsonl`, `bootstrapped.jsonl`, `history_risk.jsonl` where RL asks for history-dependence.
Output: `steer_sft.jsonl`, `steer_rl.jsonl`, `steer_bench/<benchmark>.jsonl` with its own pictures, `left_out.jsonl`
(id, kind, split, reason), `keep_rule.md`, `stats.json` with its tables in `stats.md` and the histogram `turns.png`.

Deterministic in the rows and the config; takes no model, so it may be repeated with other sizes and thresholds in the
same folder. Two passes: all rows' facts, then the chosen rows, one at a time.
"""

import json
import shutil
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from data_construction import history, score, stage_one, stage_two
from data_construction.assemble.choose import SPLITS, choose
from data_construction.assemble.facts import RowFacts, row_facts
from data_construction.assemble.select import Pools, Selection
from data_construction.assemble.stats import NAMES, assembly_sections, keep_stats, reject_stats
from data_construction.config import DataConfig
from data_construction.history import HistoryRisk, risk_table
from data_construction.seeds import SEEDS, ingested_seeds
from data_construction.stats.attacks import attack_stats
from data_construction.stats.counts import counts, row_table
from data_construction.stats.write import write_stats
from data_construction.step import RECORDS, require_finished
from safer_steer.config import relevant
from safer_steer.dialogue import RISK_KINDS, Dialogue
from safer_steer.runs import Run
from safer_steer.store import read_jsonl, rows_if_there, write_jsonl

LEFT_OUT = "left_out.jsonl"
KEPT_META = (
    *("task", "seed", "split", "benchmark", "category", "technique", "template"),
    *("generated_attack", "injector", "success_turn"),
)


def run_assemble(config: DataConfig) -> None:
    """Writes the splits; does nothing when they are there already, made with the same settings.

    Raises:
        UserError: an earlier step is not finished, or a split that was asked for has no row.
    """
    folder = config.folder
    inputs = {"seeds": folder / SEEDS, "dialogues": folder / stage_one.DIALOGUES}
    require_finished(folder, "stage1")
    if config.assemble.sft.origin == "bootstrapped":
        require_finished(folder, "stage2")
        inputs["bootstrapped"] = folder / stage_two.SCORED
    if config.assemble.rl.history_dependent:
        require_finished(folder, "history")
        inputs["history_risk"] = folder / history.JUDGED
    if score.is_wanted(config):
        require_finished(folder, "score")
        inputs["scores"] = folder / score.SCORED
    keep_rule = {"tau_safe": config.bootstrap.tau_safe, "tau_help": config.bootstrap.tau_help}
    near = {"near_duplicates": config.quality.near_duplicates}
    facts = relevant({"seed": config.seed, "assemble": config.assemble, "keep_rule": keep_rule, **near})
    with Run.open(folder, facts, stage="assemble", inputs=inputs, file=RECORDS["assemble"], redo=True) as run:
        if run.finished:
            run.say_finished()
            return
        stats = assemble(config)
        for name, note in stats["notes"].items():
            print(f"{NAMES[name]}: {note}", flush=True)
        run.finish({name: stats["splits"][name]["size"] for name in SPLITS})


def assemble(config: DataConfig) -> dict:
    """Chooses and writes the splits and their stats; returns the stats."""
    folder = config.folder
    from_stage_two = config.assemble.sft.origin == "bootstrapped"
    pools = Pools.of(config, ingested_seeds(folder))
    dialogues = list(row_facts(folder / stage_one.DIALOGUES))
    bootstrapped = list(row_facts(folder / stage_two.SCORED)) if from_stage_two else []
    risks = history.judged_risks(folder) if config.assemble.rl.history_dependent else {}
    chosen = choose(config, pools, dialogues, bootstrapped, risks)

    _write_train(folder, chosen, risks)
    _write_bench(folder, chosen["bench"])
    write_jsonl(folder / LEFT_OUT, (_left_out(name, *item) for name in SPLITS for item in chosen[name].left_out))
    if from_stage_two:
        stage_two.write_keep_rule(config)
    splits = {name: row_table(row.read() for row in chosen[name].rows) for name in SPLITS}
    stats = {
        "splits": {name: counts(split) for name, split in splits.items()},
        "short": {name: item.short for name, item in chosen.items() if item.short},
        "left_out": {name: item.reasons() for name, item in chosen.items() if item.left_out},
        "notes": {name: item.note for name, item in chosen.items() if item.note},
        "not_needed": {name: item.not_needed for name, item in chosen.items() if item.not_needed},
        "stage1": counts(row_table(read_jsonl(folder / stage_one.DIALOGUES, Dialogue)))
        | {"rejects": reject_stats(read_jsonl(folder / stage_one.REJECTS))},
        "train_rows_with_a_bench_picture": sum(pools.pool(row) == "none" for row in dialogues),
        "red_team": attack_stats(
            rows_if_there(folder / stage_one.CANDIDATES, Dialogue), read_jsonl(folder / stage_one.REJECTS)
        ),
        "keep_rule": keep_stats([row.measures for row in bootstrapped], config.bootstrap),
        "stage2_rejects": reject_stats(rows_if_there(folder / stage_two.REJECTS)),
        "history_risk": risk_table(risks.values()),
        "candidate_scores": score.score_stats(config) if score.is_wanted(config) else {},
        "history_dependent_candidates": _intersection(config, pools, dialogues, risks),
        "usage": _usage(folder),
    }
    write_stats(folder, stats, splits, "STEER", more=assembly_sections(stats))
    return stats


def _intersection(
    config: DataConfig, pools: Pools, dialogues: Iterable[RowFacts], risks: Mapping[str, HistoryRisk]
) -> int | None:
    """How many risk rows STEER-RL can be drawn from; None where they need not depend on their history."""
    if not (settings := config.assemble.rl.history_dependent):
        return None
    rules = [*score.candidate_rules(config, "rl"), history.depends_on_history(settings, risks)]
    rows = (row for row in dialogues if row.kind in RISK_KINDS and pools.pool(row) == "rl")
    return sum(not any(rule(row) for rule in rules) for row in rows)


def _usage(folder: Path) -> dict[str, dict]:
    """What the earlier steps' roles were called for, from their records."""
    found = {}
    for step in ("stage1", "score", "stage2", "history"):
        path = folder / RECORDS[step]
        usage = json.loads(path.read_text(encoding="utf-8")).get("usage", {}) if path.is_file() else {}
        found |= {f"{step} {role}": numbers for role, numbers in usage.items()}
    return found


def _write_train(folder: Path, chosen: Mapping[str, Selection], risks: Mapping[str, HistoryRisk]) -> None:
    def rl_row(facts: RowFacts) -> Dialogue:
        row = _clean(_questions_only(facts.read()))
        judged = {"history_risk": risks[row.id].scores()} if row.id in risks else {}
        return row.model_copy(update={"meta": row.meta | judged})

    rows = {
        "sft": (_clean(facts.read()) for facts in chosen["sft"].rows),
        "rl": (rl_row(facts) for facts in chosen["rl"].rows),
    }
    for name, made in rows.items():
        path = folder / f"steer_{name}.jsonl"
        path.unlink(missing_ok=True)
        if chosen[name].rows:
            write_jsonl(path, made)


def _write_bench(folder: Path, bench: Selection) -> None:
    target = folder / "steer_bench"
    shutil.rmtree(target, ignore_errors=True)
    by_benchmark: dict[str, list[RowFacts]] = defaultdict(list)
    for row in bench.rows:
        by_benchmark[row.benchmark].append(row)
        for picture in row.images:
            (target / picture).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / picture, target / picture)
    for benchmark, members in sorted(by_benchmark.items()):
        write_jsonl(target / f"{benchmark}.jsonl", (_clean(_questions_only(row.read())) for row in members))


def _left_out(split: str, row: RowFacts, reason: str) -> dict[str, str]:
    return {"id": row.id, "kind": row.kind, "split": split, "reason": reason}


def _questions_only(row: Dialogue) -> Dialogue:
    turns = [turn.model_copy(update={"assistant": None, "scores": None}) for turn in row.turns]
    return row.model_copy(update={"turns": turns})


def _clean(row: Dialogue) -> Dialogue:
    """Without what belongs to the making of the row, such as the transcript of its attack."""
    return row.model_copy(update={"meta": {key: row.meta[key] for key in KEPT_META if row.meta.get(key) is not None}})
