"""Expand (Eq. 8-9): a rewrite -> a sequence of user turns grounded in the picture; benign rows may get answers too."""

from data_construction.calls import Answer, Problem
from data_construction.config import Expand
from data_construction.probe import probe
from data_construction.quality.turns import answer_problems, longest_turn, turn_problems
from data_construction.quality.writer import Writer
from data_construction.tasks import StageOneTask, make_dialogue
from safer_steer.dialogue import Dialogue, Turn


class ExpandedTurn(Answer):
    """A user turn and, where asked for, its answer."""

    user: str
    assistant: str | None


class Expansion(Answer):
    """The turns in order."""

    turns: list[ExpandedTurn]

    def users(self) -> list[str]:
        """The user turns' words."""
        return [turn.user.strip() for turn in self.turns]


async def expand(task: StageOneTask, writer: Writer, settings: Expand) -> Dialogue:
    """Probes and expands one seed.

    Raises:
        Rejected: no usable answer, or turns that break a rule also after the re-ask.
    """
    rewrite, seed = getattr(await probe(task, writer), task.kind), task.row.seed
    rules = task.rules(writer.rules)
    answered = task.kind == "benign" and wants_answers(settings, seed.answer)
    reference = seed.answer if answered else None

    def check(expansion: Expansion) -> list[Problem]:
        problems = turn_problems(expansion.users(), task.n_turns, rules, rewrite)
        if answered:
            answers = [turn.assistant for turn in expansion.turns]
            problems += answer_problems(answers, writer.rules, reference)
        return problems

    expansion = await writer.write(
        "expand",
        Expansion,
        data={
            "kind": task.kind,
            "question": rewrite,
            "n_turns": task.n_turns,
            "with_answers": answered,
            "answer": reference,
            "max_words": longest_turn(writer.rules, rewrite),
        },
        images=seed.images,
        key=[task.task_id],
        check=check,
        texts=Expansion.users,
    )
    answers = [turn.assistant.strip() if answered else None for turn in expansion.turns]
    turns = [Turn(user=user, assistant=answer) for user, answer in zip(expansion.users(), answers, strict=True)]
    return make_dialogue(task, turns, {"rewrite": rewrite})


def wants_answers(settings: Expand, reference: str | None) -> bool:
    """Whether a benign row gets assistant turns."""
    return settings.benign_answers == "always" or (settings.benign_answers == "reference" and reference is not None)
