"""`stats.md`: the splits in the form of the paper's Table 1, what was left out and why, and the history judgements."""

from collections.abc import Mapping
from typing import Any

from safer_steer.dialogue import Kind

NAMES = {"sft": "STEER-SFT", "rl": "STEER-RL", "bench": "STEER-Bench"}
KINDS: tuple[Kind, ...] = ("benign", "obfuscated", "red_team")


def stats_markdown(stats: Mapping[str, Any]) -> str:
    """The page, from what `stats.json` holds."""
    parts = [_splits(stats), _left_out(stats), _history(stats["history_risk"])]
    return "\n".join(line for part in parts for line in part)


def _splits(stats: Mapping[str, Any]) -> list[str]:
    rows = []
    for name, title in NAMES.items():
        ours, paper = stats["splits"][name], stats["paper"][name]
        cells = [f"{ours['size']:,}", f"{paper['size']:,}", _turns(ours), _turns(paper), f"{ours['pictures']:,}"]
        cells += [f"{ours['kind'].get(kind, 0):,}" for kind in KINDS]
        missing = stats["short"].get(name, {})
        cells.append(", ".join(f"{number:,} {kind}" for kind, number in missing.items()) or "-")
        rows.append([title, *cells])
    head = ["split", "dialogues", "paper", "turns", "paper", "pictures", *KINDS, "missing to its quota"]
    note = "Turns: mean (least-most) of user turns. The paper's numbers are those of its Table 1."
    return ["# The STEER splits", "", *_table(head, rows), "", note, ""]


def _turns(numbers: Mapping[str, Any]) -> str:
    if "turns_mean" not in numbers:
        return "-"
    return f"{numbers['turns_mean']:.2f} ({numbers['turns_min']}-{numbers['turns_max']})"


def _left_out(stats: Mapping[str, Any]) -> list[str]:
    rows = [[NAMES[name], reason, f"{n:,}"] for name, found in stats["left_out"].items() for reason, n in found.items()]
    rows += [[NAMES[name], "no room in its quota, not checked", f"{n:,}"] for name, n in stats["not_needed"].items()]
    if number := stats["train_rows_with_a_bench_picture"]:
        rows.append(["STEER-SFT, STEER-RL", "has a picture of a bench seed", f"{number:,}"])
    body = _table(["split", "left out because", "rows"], rows) if rows else ["No row was left out."]
    note = "Row by row: `left_out.jsonl`. Thresholds of the keep rule: `keep_rule.md`."
    return ["## Left out", "", *body, "", note, ""]


def _history(pairs: list[Mapping[str, int]]) -> list[str]:
    if not pairs:
        return []
    counts = {(pair["alone"], pair["with_history"]): pair["rows"] for pair in pairs}
    rows = [[str(alone), *(f"{counts.get((alone, whole), 0):,}" for whole in range(1, 6))] for alone in range(1, 6)]
    head = ["alone", *(f"with history: {whole}" for whole in range(1, 6))]
    note = "Risk of the last turn of the judged dialogues, 1 harmless - 5 asks for harm; rows: the last turn alone."
    return ["## History-dependence", "", *_table(head, rows), "", note, ""]


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]
