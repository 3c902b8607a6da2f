"""The assembly's own part of the stats: what was kept, what fell out of each split and why, and its Markdown."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from data_construction.assemble.config import Measures
from data_construction.bootstrap.keep import threshold_table, why_dropped
from data_construction.config import Bootstrap
from data_construction.history import RISKS
from data_construction.score import NAMES as RULES
from data_construction.score import PAPER as PAPER_LEFT
from data_construction.stats.tables import PAPER
from safer_steer.markdown import table
from safer_steer.rubric import SCALE_MAX

NAMES = {"sft": "STEER-SFT", "rl": "STEER-RL", "bench": "STEER-Bench"}


def keep_stats(scored: Sequence[Measures], config: Bootstrap) -> dict[str, Any]:
    """How many scored dialogues are kept, why the others are not, and the table of thresholds."""
    reasons = Counter(why_dropped(measures, config.tau_safe, config.tau_help) for measures in scored)
    kept = reasons.pop("", 0)
    return {
        "tau_safe": config.tau_safe,
        "tau_help": config.tau_help,
        "scored": len(scored),
        "kept": kept,
        "dropped": dict(reasons.most_common()),
        "thresholds": threshold_table(scored, config.tau_safe, config.tau_help),
    }


def reject_stats(rejects: Iterable[dict]) -> dict[str, int]:
    """Rejects by reason."""
    return dict(Counter(row["reason"] for row in rejects).most_common())


def assembly_sections(stats: Mapping[str, Any]) -> list[str]:
    """Markdown of the candidates' scores, of what was left out, of quotas that could not be filled, and of the history
    judgements.
    """
    return [*_candidates(stats), *_left_out(stats), *_history(stats["history_risk"])]


def _candidates(stats: Mapping[str, Any]) -> list[str]:
    if not (scores := stats["candidate_scores"]):
        return []
    rows = [["Scored", f"{scores['scored']:,}", f"{PAPER['train candidates'].size:,}"]]
    for name, left in scores["left"].items():
        rows.append([f"{RULES[name]}, for {NAMES[name]}", f"{left:,}", f"{PAPER_LEFT[name]:,}"])
    if (both := stats["history_dependent_candidates"]) is not None:
        rows.append(["... of the RL pool and history-dependent", f"{both:,}", "not printed"])
    head = ["Candidates with at least", *map(str, range(1, SCALE_MAX + 1))]
    counts = [[name.replace("_", " "), *(f"{n:,}" for n in line)] for name, line in scores["at_least"].items()]
    return ["## Candidates", table(["Candidates", "Rows", "Rows (paper)"], rows), table(head, counts)]


def _left_out(stats: Mapping[str, Any]) -> list[str]:
    rows = [[NAMES[name], reason, f"{n:,}"] for name, found in stats["left_out"].items() for reason, n in found.items()]
    rows += [[NAMES[name], "no room in its quota, not checked", f"{n:,}"] for name, n in stats["not_needed"].items()]
    if number := stats["train_rows_with_a_bench_picture"]:
        rows.append(["STEER-SFT, STEER-RL", "has a picture of a bench seed", f"{number:,}"])
    short = [[NAMES[name], kind, f"{n:,}"] for name, found in stats["short"].items() for kind, n in found.items()]
    sections = ["## Left out", table(["Split", "Reason", "Rows"], rows) if rows else "No row was left out."]
    if short:
        sections += ["Missing to the quotas:", table(["Split", "Kind", "Rows"], short)]
    sections += [f"{NAMES[name]}: {note}." for name, note in stats["notes"].items()]
    return [*sections, "Row by row: `left_out.jsonl`. What other thresholds would keep: `keep_rule.md`."]


def _history(pairs: Sequence[Mapping[str, int]]) -> list[str]:
    if not pairs:
        return []
    counts = {(pair["alone"], pair["with_history"]): pair["rows"] for pair in pairs}
    rows = [[str(alone), *(f"{counts.get((alone, whole), 0):,}" for whole in RISKS)] for alone in RISKS]
    head = ["Risk alone", *(f"with history: {whole}" for whole in RISKS)]
    note = "Rows by the risk of their last turn, judged alone and with its history: 1 harmless - 5 asks for harm."
    return ["## History-dependence", note, table(head, rows)]
