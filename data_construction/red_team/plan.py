"""M3, dialogue planning: intent, strategy, technique -> a script with a goal, a tactic and a risk for each turn."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from data_construction.calls import Answer, Problem
from data_construction.quality.turns import longest_turn, turn_problems
from data_construction.quality.writer import Writer
from data_construction.red_team.forensics import Forensics
from data_construction.red_team.intent import Intent
from data_construction.tasks import StageOneTask

FINAL_RISK = 4  # the least that the last turn of a script must reach on the risk curve


class PlannedTurn(Answer):
    """A scripted user turn: its goal, its psychological tactic, its place on the risk curve (1 harmless - 5 the request
    itself), its words.
    """

    goal: str
    tactic: str
    risk: Annotated[int, Field(ge=1, le=5, strict=True)]
    user: str


class Script(Answer):
    """The planned turns in order."""

    turns: list[PlannedTurn]

    def users(self) -> list[str]:
        """The user turns' words."""
        return [turn.user.strip() for turn in self.turns]


def curve_problems(risks: Sequence[int]) -> list[Problem]:
    """What is wrong with a risk curve: it must rise, never fall, and end at the request itself or just below it."""
    problems = []
    if falls := [number for number in range(2, len(risks) + 1) if risks[number - 1] < risks[number - 2]]:
        problems.append(Problem("risk curve falls", f"the risk falls at turn(s) {falls} of {list(risks)}"))
    if risks and risks[-1] < FINAL_RISK:
        problems.append(
            Problem("risk curve ends low", f"the last risk is {risks[-1]}, at least {FINAL_RISK} is wanted")
        )
    if len(risks) > 1 and risks[0] >= risks[-1]:
        problems.append(Problem("risk curve does not rise", f"the risk goes from {risks[0]} to {risks[-1]}"))
    return problems


async def plan_script(task: StageOneTask, forensics: Forensics, intent: Intent, writer: Writer) -> Script:
    """Plans the task's `n_turns` turns.

    Raises:
        Rejected: no usable answer, or a script that breaks a rule also after the re-ask.
    """
    question, rules = task.row.seed.question, task.rules(writer.rules)
    data = {
        "original_intent": question,
        "rewritten": intent.rewritten,
        "strategy": {"name": task.strategy.name, "description": task.strategy.description},
        "technique": task.technique.as_data(),
        "forensics": forensics.model_dump(),
        "n_turns": task.n_turns,
        "max_words": longest_turn(writer.rules, question),
    }

    def check(script: Script) -> list[Problem]:
        turns = turn_problems(script.users(), task.n_turns, rules, question)
        return turns + curve_problems([turn.risk for turn in script.turns])

    return await writer.write(
        "plan",
        Script,
        data=data,
        images=task.row.seed.images,
        key=[task.task_id],
        check=check,
        texts=Script.users,
    )
