"""Stage I (Sec. 4.2): seeds -> `dialogues.jsonl`, rejects with reasons -> `rejects.jsonl`; resumes by task id.

Rows are made into `candidates.jsonl`; at the end those that repeat another go to `duplicates.jsonl`, the rest to
`dialogues.jsonl`. Transcripts of attacks that failed are in `attack_failures.jsonl`.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from data_construction import expand, fingerprint, probe
from data_construction.calls import Caller, Rejected
from data_construction.config import DataConfig, Role
from data_construction.engines import open_engine
from data_construction.quality import writer
from data_construction.quality.dedup import deduplicate
from data_construction.quality.writer import Writer
from data_construction.red_team import failures, forensics, intent, plan, simulate
from data_construction.red_team.attack import attack
from data_construction.red_team.failures import RejectStore
from data_construction.roles import endpoints
from data_construction.seeds import ingest, ingest_tasks, ingested_seeds, source_contents
from data_construction.sources.record import HowRead
from data_construction.stats.write import write_stage_one_stats
from data_construction.tasks import StageOneTask, stage_one_tasks
from safer_steer.dialogue import Dialogue
from safer_steer.errors import UserError
from safer_steer.llm import LLMClient
from safer_steer.machine import Needs, require
from safer_steer.rows import Counts, Reject, TaskResults, check_transport, count_results, process_twice
from safer_steer.runs import Run
from safer_steer.store import JsonlStore

RECORD = "run.stage1.json"
CANDIDATES, DIALOGUES, DUPLICATES, REJECTS = (
    f"{name}.jsonl" for name in ("candidates", "dialogues", "duplicates", "rejects")
)
PROMPTS = {
    "probe": probe.PROMPT,
    "expand": expand.PROMPT,
    "forensics": forensics.PROMPT,
    "intent": intent.PROMPT,
    "plan": plan.PROMPT,
    "leak": simulate.PROMPT,
    "refusal": writer.PROMPT,
}


class StageOne:
    """Makes one dialogue of any kind."""

    def __init__(self, config: DataConfig, clients: dict[str, LLMClient]):
        self._config = config
        self._writer = Writer(Caller(clients, config.folder, config.seed), config.quality)

    async def __call__(self, task: StageOneTask) -> Dialogue | Reject:
        """The task's row, or why there is none."""
        try:
            if task.kind == "red_team":
                return await attack(task, self._writer, self._config.red_team.success_score)
            return await expand.expand(task, self._writer, self._config.expand)
        except Rejected as stop:
            return stop.reject


@dataclass(frozen=True)
class Survey:
    """What there is to do: all tasks, how many of them have no result yet, and the roles these call."""

    total: int
    pending: int
    roles: list[Role]


def run_stage_one(config: DataConfig) -> None:
    """Ingests the seeds and makes their dialogues; does nothing when an earlier run finished.

    Raises:
        UserError: a source is missing, an endpoint does not answer, or every row was lost.
    """
    prompts = {name: prompt.hash for name, prompt in PROMPTS.items()}
    facts = fingerprint.facts(config, "stage1")
    contents = source_contents(config)
    with Run.open(config.folder, facts, stage="stage 1", contents=contents, prompts=prompts, file=RECORD) as run:
        if run.finished:
            run.say_finished()
            return
        require(Needs("cpu", config.folder))
        with (
            JsonlStore(config.folder / CANDIDATES) as kept,
            JsonlStore(config.folder / failures.FILE) as attack_failures,
            RejectStore(config.folder / REJECTS) as rejects,
        ):
            rejects.failures = attack_failures
            seeds, counts = _fill(config, run, kept, rejects)
        files = [config.folder / name for name in (CANDIDATES, DIALOGUES, DUPLICATES)]
        counts = without(counts, deduplicate(*files, config.quality.near_duplicates))
        write_stage_one_stats(config.folder, seeds | counts.as_dict(), run.record.get("usage", {}))
        run.finish(seeds | counts.as_dict())


def without(counts: Counts, dropped: Mapping[str, int]) -> Counts:
    """The counts with some of the kept rows among the rejected ones, by reason."""
    number, reasons = sum(dropped.values()), Counter(counts.reasons) + Counter(dropped)
    return Counts(counts.tasks, counts.kept - number, counts.rejected + number, dict(reasons.most_common()))


def _fill(config: DataConfig, run: Run, kept: JsonlStore, rejects: JsonlStore) -> tuple[dict, Counts]:
    """Two passes, each over a stream: sources -> `seeds.jsonl`, then seeds -> rows. Nothing holds all rows."""
    read: list[HowRead] = []
    seed_counts = asyncio.run(ingest(ingest_tasks(config, read), config.folder, rejects))
    print("\n".join(map(str, read)), flush=True)
    _check_not_empty("seeds", seed_counts)
    survey = _survey(config, TaskResults(kept, rejects, with_transport=False))
    if survey.pending:
        with endpoints(config, survey.roles) as wanted:
            counts = asyncio.run(_make(config, run, survey.total, wanted, kept, rejects))
    else:
        counts = count_results(_tasks(config), kept, rejects)
    _check_not_empty("Stage I", counts)
    numbers = {"seeds": seed_counts.tasks, "seeds rejected": seed_counts.rejected}
    numbers |= {f"(seed: {reason})": number for reason, number in seed_counts.reasons.items()}
    return numbers, counts


def _tasks(config: DataConfig) -> Iterator[StageOneTask]:
    return stage_one_tasks(ingested_seeds(config.folder), config)


def _survey(config: DataConfig, results: TaskResults) -> Survey:
    total, pending = 0, Counter()
    for total, task in enumerate(_tasks(config), start=1):  # noqa: B007
        pending[task.kind] += results.of(task) is None
    roles: list[Role] = ["generator", "target", "evaluator"] if pending["red_team"] else ["generator"]
    return Survey(total, pending.total(), list(dict.fromkeys([*roles, config.quality.refusal_role])))


async def _make(
    config: DataConfig, run: Run, total: int, wanted: dict, kept: JsonlStore, rejects: JsonlStore
) -> Counts:
    async with open_engine(config, wanted, StageOne, run) as engine:
        counts = await process_twice(
            partial(_tasks, config),
            engine.work,
            kept=kept,
            rejects=rejects,
            label="stage 1",
            concurrency=config.concurrency,
            max_transport_rate=config.max_transport_rate,
            total=total,
        )
        check_transport(rejects, counts.tasks, config.max_transport_rate, "stage 1")
        return counts


def _check_not_empty(what: str, counts: Counts) -> None:
    if counts.kept == 0:
        reasons = ", ".join(f"{number} {reason}" for reason, number in counts.reasons.items()) or "there were none"
        raise UserError(
            f"{what}: none of {counts.tasks} rows could be used ({reasons}); see rejects.jsonl, then correct the "
            "source or the endpoint"
        )
