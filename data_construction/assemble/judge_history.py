"""Step `history`: the risk dialogues of the STEER-RL pool -> `history_risk.jsonl`; resumes by task id.

Judgements do not depend on the thresholds, so these may be changed and `assemble` run again without a call.
"""

from pathlib import Path

from data_construction import fingerprint, stage_one
from data_construction.assemble.facts import row_facts
from data_construction.assemble.history import PROMPT, HistoryJudge, HistoryRisk, HistoryTask
from data_construction.assemble.select import Pools, select
from data_construction.calls import Caller
from data_construction.config import DataConfig, Split
from data_construction.resumable import run_tasks
from data_construction.seeds import ingested_seeds
from data_construction.stage_two import require_finished
from safer_steer.dialogue import RISK_KINDS
from safer_steer.errors import UserError
from safer_steer.llm import LLMClient
from safer_steer.runs import Run
from safer_steer.store import read_jsonl

RECORD = "run.history.json"
JUDGED, REJECTS = "history_risk.jsonl", "history_rejects.jsonl"


def run_history(config: DataConfig) -> None:
    """Judges the dialogues; does nothing when an earlier run finished.

    Raises:
        UserError: Stage I is not finished, the endpoint does not answer, or no dialogue could be judged.
    """
    folder = config.folder
    require_finished(folder, stage_one.RECORD, "stage1")
    inputs, prompts = {"dialogues": folder / "dialogues.jsonl"}, {"request_risk": PROMPT.hash}
    facts = fingerprint.facts(config, "history")
    with Run.open(folder, facts, stage="history", inputs=inputs, prompts=prompts, file=RECORD) as run:
        if run.finished:
            run.say_finished()
            return
        tasks = history_tasks(config)
        counts = run_tasks(config, "history", run, tasks, history_judge, kept=JUDGED, rejects=REJECTS)
        if tasks and not counts.kept:
            reasons = ", ".join(f"{number} {reason}" for reason, number in counts.reasons.items())
            raise UserError(
                f"history: none of {counts.tasks} dialogues could be judged ({reasons}); see {REJECTS}, then correct "
                "the evaluator's endpoint"
            )
        run.finish(counts.as_dict())


def history_judge(config: DataConfig, clients: dict[str, LLMClient]) -> HistoryJudge:
    """The work on one dialogue."""
    return HistoryJudge(Caller(clients, config.folder, config.seed), config.assemble.rl.history_dependent)


def history_tasks(config: DataConfig) -> list[HistoryTask]:
    """The risk dialogues of the RL pool, as many as configured, in the order in which STEER-RL takes them."""
    rl = config.assemble.rl
    mix = {kind: weight for kind, weight in rl.mix.items() if kind in RISK_KINDS and weight}
    if not mix or rl.size == 0:
        return []
    pools = Pools.of(config, ingested_seeds(config.folder))
    rows = (row for row in row_facts(config.folder / "dialogues.jsonl") if pools.pool(row) == "rl")
    wanted = Split(size=rl.history_dependent.candidates, mix=mix)
    return [HistoryTask(row) for row in select(rows, wanted, config.seed, "rl").rows]


def judged_risks(folder: Path) -> dict[str, HistoryRisk]:
    """The judgements by dialogue id."""
    return {row.id: row for row in read_jsonl(folder / JUDGED, HistoryRisk)}
