"""Expand (Eq. 8): a rewrite -> a sequence of user turns; a benign row with a known answer gets answers too."""

from pathlib import Path

from data_construction.calls import Answer, Caller, Rejected
from data_construction.probe import probe
from data_construction.tasks import StageOneTask, make_dialogue
from safer_steer.dialogue import Dialogue, Turn
from safer_steer.prompts import Prompt

PROMPT = Prompt(Path(__file__).with_name("expand.jinja"))


class ExpandedTurn(Answer):
    """A user turn and, where asked for, its answer."""

    user: str
    assistant: str | None


class Expansion(Answer):
    """The turns in order."""

    turns: list[ExpandedTurn]


async def expand(task: StageOneTask, caller: Caller) -> Dialogue:
    """Probes and expands one seed.

    Raises:
        Rejected: no usable answer, another number of turns than asked for, or an empty turn.
    """
    rewrite, seed = getattr(await probe(task, caller), task.kind), task.row.seed
    answer = seed.answer if task.kind == "benign" else None
    data = {"kind": task.kind, "question": rewrite, "n_turns": task.n_turns, "answer": answer}
    expansion = await caller.ask(
        "generator", PROMPT, Expansion, name="expand", data=data, images=[seed.image], key=[task.task_id]
    )
    check_turns("expand", [turn.user for turn in expansion.turns], task.n_turns)
    turns = [Turn(user=turn.user.strip(), assistant=_answer(turn, answer)) for turn in expansion.turns]
    return make_dialogue(task, turns, {"rewrite": rewrite})


def _answer(turn: ExpandedTurn, reference: str | None) -> str | None:
    """Answers count only where a reference was there to write them from."""
    return turn.assistant.strip() or None if turn.assistant and reference is not None else None


def check_turns(name: str, users: list[str], n_turns: int) -> None:
    """Checks what a JSON schema cannot say.

    Raises:
        Rejected: a wrong number of turns, or a turn without text.
    """
    if len(users) != n_turns:
        raise Rejected(f"{name}: wrong number of turns", f"asked for {n_turns}, got {len(users)}")
    if empty := [index for index, user in enumerate(users, start=1) if not user.strip()]:
        raise Rejected(f"{name}: empty turn", f"turn(s) {empty} have no text")
