"""Markdown tables: sizes and turns in the form of the paper's Table 1, success of attacks, cost by role, rejects."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from safer_steer.markdown import table
from safer_steer.usage import changes


@dataclass(frozen=True)
class PaperSplit:
    """What the paper reports of a split: its size, the range of turns, the mean number of turns."""

    name: str
    size: int
    mean_turns: str
    turns: str = "2-10"


# Table 1, and Sec. 4.2 for the candidates of Stage I.
PAPER = {
    "sft": PaperSplit("STEER-SFT", 12_934, "6.35"),
    "rl": PaperSplit("STEER-RL", 2_000, "8.33"),
    "bench": PaperSplit("STEER-Bench", 3_227, "8.55"),
    "train candidates": PaperSplit("Stage I, train", 105_000, "about 8"),
    "bench candidates": PaperSplit("Stage I, bench", 10_700, "about 8"),
}


def table_one(splits: Mapping[str, pd.DataFrame]) -> str:
    """Table 1 of the paper, this run's next to the paper's; `splits` has keys of `PAPER`."""
    rows = []
    for key, found in splits.items():
        paper = PAPER[key]
        turns = f"{found.turns.min()}-{found.turns.max()}" if len(found) else "-"
        mean = f"{found.turns.mean():.2f}" if len(found) else "-"
        rows.append([paper.name, f"{len(found):,}", turns, mean, f"{paper.size:,}", paper.turns, paper.mean_turns])
    head = ["Split", "Size", "Turns", "Avg. turns", "Size (paper)", "Turns (paper)", "Avg. turns (paper)"]
    return table(head, rows)


def attack_table(rates: Mapping[str, Mapping[str, float]], what: str) -> str:
    """Success by strategy or technique; a rate of few tries says little, so the tries are next to it."""
    rows = [[name, entry["tries"], entry["successes"], f"{100 * entry['rate']:.1f} %"] for name, entry in rates.items()]
    return table([what, "Tries", "Successes", "Rate"], rows)


def cost_table(usage: Mapping[str, Mapping[str, Any]]) -> str:
    """Calls, tokens and USD by role; "?" where the cost is not known."""
    columns = {"calls": "Calls", "cached": "From cache", "tokens_in": "Tokens in", "tokens_out": "Tokens out"}
    columns = {name: head for name, head in columns.items() if any(name in numbers for numbers in usage.values())}
    rows = []
    for role, numbers in usage.items():
        usd = numbers.get("usd")
        cost = f"{usd:,.2f}" if isinstance(usd, int | float) else "?"
        rows.append([role, numbers.get("model", ""), *(f"{numbers.get(name, 0):,}" for name in columns), cost])
    return table(["Role", "Model", *columns.values(), "USD"], rows)


def change_table(usage: Mapping[str, Mapping[str, Any]]) -> str:
    """What of the requests was left out or replaced, by role."""
    return table(["Role", "Parameter", "What became of it"], [list(change) for change in changes(usage)])


def reason_table(reasons: Mapping[str, int]) -> str:
    """Rejects by reason."""
    return table(["Reason", "Rows"], [[reason, f"{number:,}"] for reason, number in reasons.items()])
