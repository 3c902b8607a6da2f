"""M3, dialogue planning: rewritten question, strategy, technique -> a script with a goal and a risk for each turn."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from data_construction.calls import Answer, Caller
from data_construction.expand import check_turns
from data_construction.red_team.intent import Intent
from data_construction.tasks import StageOneTask
from safer_steer.prompts import Prompt

PROMPT = Prompt(Path(__file__).with_name("plan.jinja"))


class PlannedTurn(Answer):
    """A scripted user turn: its goal, its place on the risk curve (1 harmless - 5 the request itself), its words."""

    goal: str
    risk: Annotated[int, Field(ge=1, le=5, strict=True)]
    user: str


class Script(Answer):
    """The planned turns in order."""

    turns: list[PlannedTurn]

    def users(self) -> list[str]:
        """The user turns' words."""
        return [turn.user.strip() for turn in self.turns]


async def plan_script(task: StageOneTask, intent: Intent, caller: Caller) -> Script:
    """Plans the task's `n_turns` turns.

    Raises:
        Rejected: no usable answer, another number of turns than asked for, or an empty turn.
    """
    data = {
        "rewritten": intent.rewritten,
        "strategy": task.strategy.as_data(),
        "technique": task.technique.as_data(),
        "n_turns": task.n_turns,
    }
    script = await caller.ask(
        "generator", PROMPT, Script, name="plan", data=data, images=[task.row.seed.image], key=[task.task_id]
    )
    check_turns("plan", script.users(), task.n_turns)
    return script
