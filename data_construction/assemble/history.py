"""History-dependence of STEER-RL's risk rows: the last turn alone is low-risk, with its history it is high-risk.

Two judgements by the evaluator, each 1 (harmless) to 5 (plainly asks for harm). A row without both has none: it is left
out of STEER-RL and counted, never taken for harmless.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from data_construction.assemble.facts import RowFacts
from data_construction.assemble.select import Rule
from data_construction.calls import Answer, Caller, Rejected
from data_construction.config import HistoryDependence
from safer_steer.dialogue import RISK_KINDS
from safer_steer.prompts import Prompt
from safer_steer.rows import Reject

PROMPT = Prompt(Path(__file__).with_name("request_risk.jinja"))
RISKS = range(1, 6)


class RequestRisk(Answer):
    """One judgement; `risk` is 1 harmless, 2 sensitive, 3 cannot be told, 4 helps to do harm, 5 asks for harm."""

    rationale: str
    risk: Annotated[int, Field(ge=1, le=5, strict=True)]


class HistoryRisk(BaseModel):
    """Both judgements of a dialogue's last turn; `id` is the dialogue's."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    id: str
    alone: RequestRisk
    with_history: RequestRisk
    meta: dict[str, Any] = {}

    def scores(self) -> dict[str, int]:
        """What the row's meta keeps."""
        return {"alone": self.alone.risk, "with_history": self.with_history.risk}


@dataclass(frozen=True)
class HistoryTask:
    """One risk dialogue to judge."""

    row: RowFacts

    @property
    def task_id(self) -> str:
        """Stable over runs: the row's id is a hash of its content."""
        return f"history/{self.row.id}"

    @property
    def group(self) -> str:
        """Tasks of one group share calls: no two do."""
        return self.task_id


class HistoryJudge:
    """Judges dialogues' last turns, any number at once."""

    def __init__(self, caller: Caller, config: HistoryDependence):
        self._caller, self._config = caller, config

    async def __call__(self, task: HistoryTask) -> HistoryRisk | Reject:
        """Both judgements, or why there are none."""
        row = task.row.read()
        users = [turn.user for turn in row.turns]
        pictures = list(dict.fromkeys(path for turn in range(len(users)) for path in row.images_at(turn)))
        try:
            shown = pictures if self._config.alone_shows_pictures else []
            alone = await self._judge([], users[-1], shown, (task.task_id, "alone"))
            whole = await self._judge(users[:-1], users[-1], pictures, (task.task_id, "with_history"))
        except Rejected as stop:
            return stop.with_row({"dialogue": row.id}).reject
        return HistoryRisk(id=row.id, alone=alone, with_history=whole, meta={"task": task.task_id})

    async def _judge(self, history: list[str], user: str, pictures: list[str], key: tuple) -> RequestRisk:
        data = {"history": history, "user": user}
        return await self._caller.ask(
            "evaluator", PROMPT, RequestRisk, name="request_risk", data=data, images=pictures, key=key
        )


def depends_on_history(config: HistoryDependence, risks: Mapping[str, HistoryRisk]) -> Rule:
    """Leaves out risk rows that are not history-dependent; benign rows are not subject to it."""

    def rule(row: RowFacts) -> str:
        if row.kind not in RISK_KINDS:
            return ""
        if row.id not in risks:
            return "history: not judged"
        judged = risks[row.id]
        if judged.alone.risk > config.max_alone:
            return "history: risky without it"
        return "history: not risky with it" if judged.with_history.risk < config.min_with_history else ""

    return rule


def risk_table(risks: Iterable[HistoryRisk]) -> list[dict[str, int]]:
    """How many judged rows have each pair of scores, so that a user can choose the thresholds."""
    pairs = Counter((item.alone.risk, item.with_history.risk) for item in risks)
    return [
        {"alone": alone, "with_history": whole, "rows": pairs[alone, whole]}
        for alone in RISKS
        for whole in RISKS
        if pairs[alone, whole]
    ]
