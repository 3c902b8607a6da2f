"""Success of red-team attacks by strategy, by technique and by pair, from kept rows and rejects, row by row."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import pandas as pd

from data_construction.red_team.attack import FAILED
from safer_steer.dialogue import Dialogue


def attack_stats(dialogues: Iterable[Dialogue], rejects: Iterable[dict]) -> dict[str, Any]:
    """Tries, successes and rate by strategy, technique and pair, and the turn at which attacks succeeded.

    An attack is a try when it has a verdict: it succeeded, or was played to its end, every answer scored. Attacks that
    ended for another reason (no usable script, a target call that failed or was filtered, a missing score) are counted
    by reason and are no tries, so a failed call is never a refusal.

    Args:
        dialogues: rows of all kinds, before duplicates are taken out.
        rejects: rows of `rejects.jsonl`.
    """
    won = [
        (row.strategy, row.meta["technique"], 1, row.meta["success_turn"])
        for row in dialogues
        if row.kind == "red_team"
    ]
    attacks = [(row["strategy"], row["technique"], row["reason"]) for row in rejects if row.get("strategy")]
    lost = [(strategy, technique, 0, None) for strategy, technique, reason in attacks if reason == FAILED]
    tries = pd.DataFrame([*won, *lost], columns=["strategy", "technique", "success", "turn"])
    tries["pair"] = tries.strategy + " + " + tries.technique
    turns = Counter(turn for *_, turn in won)
    return {name: _rates(tries.groupby(name).success) for name in ("strategy", "technique", "pair")} | {
        "success_turn": {str(turn): turns[turn] for turn in sorted(turns)},
        "without_verdict": dict(Counter(reason for *_, reason in attacks if reason != FAILED).most_common()),
    }


def _rates(success: Any) -> dict[str, dict[str, float]]:
    groups = {name: (len(group), int(group.sum())) for name, group in success}
    return {name: {"tries": n, "successes": k, "rate": round(k / n, 3)} for name, (n, k) in groups.items()}
