"""Adaptive user turns: the tutor of training writes each next user turn from the model's last answer (Eq. 17).

So a model is measured against what Stage III trained against. Only the next turn is used, the tutor's scores are not:
the judge scores every answer afterwards.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safer_steer.answer_tags import form_note
from safer_steer.dialogue import Turn
from safer_steer.store import read_jsonl
from safer_steer.verdict import Outcome, Unscored
from safer_steer_verl.interactions.safety_tutor import KEPT, SafetyTutor


async def adapted_turn(
    tutor: SafetyTutor, done: Sequence[Turn], pictures: Sequence[Sequence[Path]], planned: Turn
) -> Turn | Unscored:
    """The next turn with the tutor's user turn, or with the benchmark's own where it gives none, and why in its meta.

    Args:
        tutor: whoever writes it.
        done: the answered turns, at least one; answers are data, whatever they say.
        pictures: those shown at each of them.
        planned: the benchmark's own next turn.

    Returns:
        The turn; `Unscored` where the tutor could not be reached, so that the dialogue waits for another try.

    Raises:
        RunAborted: so many calls in a row failed that the client gives up.
    """
    *history, (user, answer) = [(turn.user, turn.assistant or "") for turn in done]
    images, shown = [path for paths in pictures for path in paths], [len(paths) for paths in pictures]
    note = form_note(done[-1].meta.get("format_problem", ""))  # as in training
    found = await tutor.step(history, images, user, answer, planned.user, shown, note)
    meta: dict[str, Any] = {"adapted": False, "attack_strategy": None}
    text, why = planned.user, ""
    if not isinstance(found, Unscored):
        meta = {"adapted": found.adapted, "attack_strategy": found.attack_strategy}
        text, why = found.next_user or planned.user, found.not_adapted
    elif found.outcome == Outcome.TRANSPORT:
        return found
    else:
        why = f"tutor {found.reason}"
    meta |= {"not_adapted": why} if why else {}
    return planned.model_copy(update={"user": text, "template": planned.user, "meta": planned.meta | meta})


def count_user_turns(path: Path) -> dict[str, int]:
    """Of the user turns after the first one that got an answer, how many the tutor wrote, how many it kept as the
    benchmark has them, and how many are the benchmark's because it failed; empty where no tutor was asked.
    """
    counts, asked = {"written": 0, "kept": 0, "failed": 0}, False
    for meta in (turn.get("meta", {}) for row in read_jsonl(path) for turn in row["turns"]):
        if "adapted" in meta:
            asked = True
            counts["written" if meta["adapted"] else "kept" if meta.get("not_adapted") == KEPT else "failed"] += 1
    return counts if asked else {}
