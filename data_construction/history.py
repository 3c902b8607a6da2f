"""Step `history`: which risk rows of STEER-RL depend on their history -> `history_risk.jsonl`; resumes by task id.

The last turn alone is low-risk, with its history it is high-risk: two judgements by the evaluator, each 1 (harmless) to
5 (plainly asks for harm). A row without both has none: it is left out of STEER-RL and counted, never taken for
harmless. Judgements do not depend on the thresholds, so these may be changed and `assemble` run again without a call.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from data_construction.assemble.config import HistoryDependence, Split
from data_construction.assemble.facts import RowFacts, row_facts
from data_construction.assemble.select import Pools, Rule, select
from data_construction.calls import Answer, Caller, Rejected
from data_construction.config import DataConfig
from data_construction.prompts import HISTORY
from data_construction.score import candidate_rules
from data_construction.seeds import ingested_seeds
from data_construction.stage_one import DIALOGUES
from data_construction.step import RowTask, require_finished, require_some, step
from safer_steer.data_block import transcript
from safer_steer.dialogue import RISK_KINDS
from safer_steer.rows import Reject
from safer_steer.stage import Result, Stage
from safer_steer.store import read_jsonl

JUDGED, REJECTS = "history_risk.jsonl", "history_rejects.jsonl"
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


def history(config: DataConfig) -> Stage:
    """Judges the risk dialogues of the RL pool.

    Raises:
        UserError: Stage I is not finished.
    """
    require_finished(config.folder, "stage1")
    dependence = config.assemble.rl.history_dependent
    return step(
        config,
        "history",
        HistoryJudge,
        cache(partial(history_tasks, config)),  # chosen once, not at every pass
        facts={"alone_shows_pictures": dependence.alone_shows_pictures},  # what only chooses the tasks may change
        grows=True,
        prompts=HISTORY,
        after=_finish,
        kept=JUDGED,
        rejects=REJECTS,
    )


def history_tasks(config: DataConfig) -> list[RowTask]:
    """The risk dialogues of the RL pool, as many as configured, in the order in which STEER-RL takes them."""
    if (wanted := _wanted(config)) is None:
        return []
    pools, rules = Pools.of(config, ingested_seeds(config.folder)), candidate_rules(config, "rl")
    rows = (row for row in row_facts(config.folder / DIALOGUES) if pools.pool(row) == "rl")
    return [RowTask("history", row.id, row.read) for row in select(rows, wanted, config.seed, "rl", rules).rows]


def _wanted(config: DataConfig) -> Split | None:
    """Which risk rows to judge; None where STEER-RL is to have none."""
    rl = config.assemble.rl
    mix = {kind: weight for kind, weight in rl.mix.items() if kind in RISK_KINDS}
    if not any(mix.values()) or rl.size == 0:
        return None
    number = rl.history_dependent.candidates
    return Split(size=number, mix=mix, mean_turns=None if number is None else rl.mean_turns)


def _finish(result: Result) -> dict[str, int]:
    if result.counts.tasks:
        require_some("history", result.counts, REJECTS, "correct the evaluator's endpoint")
    return result.counts.as_dict()


def judged_risks(folder: Path) -> dict[str, HistoryRisk]:
    """The judgements by dialogue id."""
    return {row.id: row for row in read_jsonl(folder / JUDGED, HistoryRisk)}


class HistoryJudge:
    """Judges dialogues' last turns, any number at once."""

    def __init__(self, config: DataConfig, caller: Caller):
        self._caller, self._config = caller, config.assemble.rl.history_dependent

    async def __call__(self, task: RowTask) -> HistoryRisk | Reject:
        """Both judgements, or why there are none."""
        row = task.load()
        users, paths = [turn.user for turn in row.turns], [row.images_at(turn) for turn in range(len(row.turns))]
        seen = [path for shown in paths for path in shown]
        try:
            alone = await self._judge(users[-1:], [seen if self._config.alone_shows_pictures else []], task, "alone")
            whole = await self._judge(users, paths, task, "with_history")
        except Rejected as stop:
            return stop.with_row({"dialogue": row.id}).reject
        return HistoryRisk(id=row.id, alone=alone, with_history=whole, meta={"task": task.task_id})

    async def _judge(self, users: list[str], paths: list[list[str]], task: RowTask, name: str) -> RequestRisk:
        history, pictures = transcript([(user, None) for user in users[:-1]], [len(shown) for shown in paths])
        return await self._caller.ask(
            "evaluator",
            "request_risk",
            RequestRisk,
            data={"history": history, "user": users[-1], **pictures},
            images=[path for shown in paths for path in shown],
            key=(task.task_id, name),
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
