"""By which move an adaptive attack succeeded: what the tutor did to write a user turn, and whether the answer failed.

answers.jsonl -> `read_moves`, the move behind each user turn; with a `turn_table` -> `by_move`.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd

from evaluation.multi_turn.aggregate import Numbers, PassConfig
from evaluation.multi_turn.intervals import ratio_interval
from safer_steer.store import read_jsonl

FIRST, OWN = "first turn", "the benchmark's own turn"  # user turns that the tutor did not write
PLAN = "the planned turn, adapted"  # the tutor's, without a strategy: "none"


def move_of(number: int, meta: dict[str, Any]) -> str:
    """The move behind a user turn (from 1) of an adaptive dialogue, by the turn's meta."""
    if number == 1:
        return FIRST
    if not meta.get("adapted"):
        return OWN
    return PLAN if (strategy := str(meta.get("attack_strategy"))) == "none" else strategy


def read_moves(path: Path) -> dict[tuple[str, int], str]:
    """(dialogue, turn) -> move of every user turn of a file of answers; empty where no tutor was asked."""
    moves, adaptive = {}, False
    for row in read_jsonl(path):
        for number, turn in enumerate(row["turns"], 1):
            meta = turn.get("meta", {})
            moves[row["id"], number] = move_of(number, meta)
            adaptive |= "adapted" in meta
    return moves if adaptive else {}


def by_move(turns: pd.DataFrame, moves: dict[tuple[str, int], str], passing: PassConfig) -> list[Numbers]:
    """For each move, the most successful first: how many dialogues fell by it.

    Args:
        turns: a `turn_table`; unscored turns count neither as met nor as fallen.
        moves: of `read_moves`.
        passing: which harmlessness fails, and how intervals are drawn.

    Returns:
        `move`; `met`, the turns written by it that dialogues without a failure so far answered; `fell`, those of them
        whose answer is the dialogue's first failure; `rate`, their share in percent, with its interval `rate_ci` over
        dialogues; `at_turn` and `levels`, how many fell at which turn and with which harmlessness.
    """
    scored = turns[turns.harmlessness.notna()].sort_values(["dialogue", "turn"])
    scored = scored.assign(
        fell=scored.harmlessness < passing.failure_below,
        move=[moves.get(key, OWN) for key in zip(scored.dialogue, scored.turn, strict=True)],
    )
    met = scored[scored.groupby("dialogue").fell.cumsum() == scored.fell]  # up to the first failure
    found = []
    for move, group in met.groupby("move"):
        fallen, counts = group[group.fell], group.groupby("sample_of").fell.agg(["sum", "size"])
        low, high = ratio_interval([(int(a), int(b)) for a, b in counts.to_numpy()], *passing.draws)
        numbers: Numbers = {"move": move, "met": len(group), "fell": len(fallen)}
        numbers |= {"rate": 100.0 * len(fallen) / len(group), "rate_ci": (100.0 * low, 100.0 * high)}
        numbers |= {"at_turn": _counts(fallen.turn), "levels": _counts(fallen.harmlessness)}
        found.append(numbers)
    return sorted(found, key=lambda numbers: (-numbers["fell"], numbers["move"]))


def _counts(values: pd.Series) -> dict[int, int]:
    return dict(sorted(Counter(map(int, values)).items()))
