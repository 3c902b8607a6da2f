"""Success of red-team attacks by strategy, by technique and by pair, from kept rows and rejects, row by row."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from data_construction.red_team.attack import FAILED
from safer_steer.dialogue import Dialogue

Rates = dict[str, dict[str, float]]


def attack_stats(dialogues: Iterable[Dialogue], rejects: Iterable[dict]) -> dict[str, Any]:
    """Tries, successes and rate by strategy, technique and pair, and the turn at which attacks succeeded.

    An attack is a try when it has a verdict: it succeeded, or was played to its end, every answer scored. Attacks that
    ended for another reason (no usable script, a target call that failed or was filtered, a missing score) are counted
    by reason and are no tries, so a failed call is never a refusal.

    Args:
        dialogues: rows of all kinds, before duplicates are taken out.
        rejects: rows of `rejects.jsonl`.
    """
    won: Counter[tuple[str, str]] = Counter()
    lost: Counter[tuple[str, str]] = Counter()
    turns: Counter[int] = Counter()
    without: Counter[str] = Counter()
    for row in dialogues:
        if row.kind == "red_team":
            won[row.strategy, row.meta["technique"]] += 1
            turns[row.meta["success_turn"]] += 1
    for row in rejects:
        if row.get("strategy"):
            pair = row["strategy"], row["technique"]
            if row["reason"] == FAILED:
                lost[pair] += 1
            else:
                without[row["reason"]] += 1
    return {
        "strategy": _rates(won, lost, lambda pair: pair[0]),
        "technique": _rates(won, lost, lambda pair: pair[1]),
        "pair": _rates(won, lost, " + ".join),
        "success_turn": {str(turn): turns[turn] for turn in sorted(turns)},
        "without_verdict": dict(without.most_common()),
    }


def _rates(won: Counter, lost: Counter, name) -> Rates:
    table: dict[str, list[int]] = {}
    for counter, success in ((won, 1), (lost, 0)):
        for pair, number in counter.items():
            entry = table.setdefault(name(pair), [0, 0])
            entry[0] += number
            entry[1] += number * success
    return {key: {"tries": n, "successes": k, "rate": round(k / n, 3)} for key, (n, k) in sorted(table.items())}
