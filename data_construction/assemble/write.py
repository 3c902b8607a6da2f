"""Assembly of the splits.

Input: `dialogues.jsonl`, `bootstrapped.jsonl`, `history_risk.jsonl` where RL asks for history-dependence.
Output: `steer_sft.jsonl`, `steer_rl.jsonl`, `steer_bench/<benchmark>.jsonl` with its own pictures, `left_out.jsonl`
(id, kind, split, reason), `stats.json`, `stats.md`, `keep_rule.md`.

Deterministic in the rows and the config; takes no model, so it may be repeated with other sizes and thresholds in the
same folder. Two passes: all rows' facts, then the chosen rows, one at a time.
"""

import json
import shutil
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from data_construction import stage_one, stage_two
from data_construction.assemble import judge_history
from data_construction.assemble.choose import SPLITS, choose
from data_construction.assemble.facts import RowFacts, row_facts
from data_construction.assemble.history import HistoryRisk
from data_construction.assemble.select import Pools, Selection
from data_construction.assemble.stats import all_stats
from data_construction.assemble.table_one import stats_markdown
from data_construction.config import DataConfig
from data_construction.seeds import SeedRow
from safer_steer.dialogue import Dialogue
from safer_steer.runs import Run
from safer_steer.store import read_jsonl, write_atomic, write_jsonl

RECORD = "run.json"
LEFT_OUT = "left_out.jsonl"
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
        inputs["bootstrapped"] = folder / stage_two.SCORED
    if config.assemble.rl.history_dependent:
        stage_two.require_finished(folder, judge_history.RECORD, "history")
        inputs["history_risk"] = folder / judge_history.JUDGED
    facts = config.facts("assemble")
    _forget_other_settings(folder / RECORD, facts.model_dump(mode="json"))
    with Run.open(folder, facts, stage="assemble", inputs=inputs, file=RECORD) as run:
        if run.finished:
            run.say_finished()
            return
        stats = assemble(config)
        run.finish({name: stats["splits"][name]["size"] for name in SPLITS})


def assemble(config: DataConfig) -> dict:
    """Chooses and writes the splits; returns the stats."""
    folder = config.folder
    bootstrapped = config.assemble.sft.origin == "bootstrapped"
    pools = Pools.of(config, read_jsonl(folder / "seeds.jsonl", SeedRow))
    dialogues = list(row_facts(folder / "dialogues.jsonl"))
    candidates = list(row_facts(folder / stage_two.SCORED)) if bootstrapped else [r for r in dialogues if r.answered]
    risks = judge_history.judged_risks(folder) if config.assemble.rl.history_dependent else {}
    chosen = choose(config, pools, dialogues, candidates, risks)

    _write_train(folder, chosen, risks)
    _write_bench(folder, chosen["bench"])
    write_jsonl(folder / LEFT_OUT, (_left_out(name, *item) for name in SPLITS for item in chosen[name].left_out))
    if bootstrapped:
        stage_two.write_keep_rule(config)
    stats = all_stats(config, pools, dialogues, candidates if bootstrapped else [], risks, chosen)
    write_atomic(folder / "stats.json", json.dumps(stats, indent=1, ensure_ascii=False) + "\n")
    write_atomic(folder / "stats.md", stats_markdown(stats))
    return stats


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


def _forget_other_settings(record: Path, facts: dict) -> None:
    if record.is_file() and json.loads(record.read_text(encoding="utf-8"))["facts"]["config"] != facts:
        record.unlink()
