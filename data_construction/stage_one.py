"""Stage I (Sec. 4.2): seeds -> `dialogues.jsonl`, rejects with reasons -> `rejects.jsonl`; resumes by task id.

Rows are made into `candidates.jsonl`; at the end those that repeat another go to `duplicates.jsonl`, the rest to
`dialogues.jsonl`. Transcripts of attacks that failed are in `attack_failures.jsonl`.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial

from data_construction.calls import Caller, Rejected
from data_construction.config import DataConfig, Step
from data_construction.expand import expand
from data_construction.prompts import STAGE_ONE
from data_construction.quality.dedup import deduplicate
from data_construction.quality.writer import Writer
from data_construction.red_team.attack import attack
from data_construction.red_team.failures import RejectStore
from data_construction.seeds import SEEDS, ingest, ingest_tasks, ingested_seeds, source_contents
from data_construction.sources.record import HowRead
from data_construction.stats.write import write_stage_one_stats
from data_construction.step import RECORDS, require_some, step
from data_construction.tasks import StageOneTask, stage_one_tasks
from safer_steer.config import relevant
from safer_steer.dialogue import Dialogue
from safer_steer.errors import UserError
from safer_steer.rows import Counts, Reject
from safer_steer.runs import difference, read_record
from safer_steer.stage import Result, Stage
from safer_steer.store import JsonlStore

CANDIDATES, DIALOGUES, DUPLICATES, REJECTS = (
    f"{name}.jsonl" for name in ("candidates", "dialogues", "duplicates", "rejects")
)
SEED_FACTS = ("kinds", "sources", "injector")  # what `seeds.jsonl` depends on, next to the run's seed
FACTS = (*SEED_FACTS, "turns", "expand", "quality", "red_team")
ADVICE = "correct the source or the endpoint"


def stage_one(config: DataConfig) -> Stage:
    """Ingests the seeds and makes their dialogues."""
    return step(
        config,
        "stage1",
        MakeDialogue,
        partial(_tasks, config),
        facts={name: getattr(config, name) for name in FACTS},
        contents=partial(_contents, config, "seeds"),
        prompts=STAGE_ONE,
        before=partial(_ingest, config),
        after=partial(_finish, config),
        kept=CANDIDATES,
        rejects=REJECTS,
        open_rejects=RejectStore,
    )


def seeds(config: DataConfig) -> Stage:
    """Reads the sources into `seeds.jsonl` and makes nothing of them: no model is called."""
    return step(
        config,
        "seeds",
        MakeDialogue,
        tuple,
        facts={name: getattr(config, name) for name in SEED_FACTS},
        prompts=(),
        contents=partial(_contents, config, "stage1"),
        before=partial(_ingest, config),
        after=lambda result: dict(result.before),
        kept=SEEDS,
        rejects=REJECTS,
    )


class MakeDialogue:
    """Makes one dialogue of any kind."""

    def __init__(self, config: DataConfig, caller: Caller):
        self._config, self._writer = config, Writer(caller, config.quality)

    async def __call__(self, task: StageOneTask) -> Dialogue | Reject:
        """The task's row, or why there is none."""
        try:
            if task.kind == "red_team":
                return await attack(task, self._writer, self._config.red_team)
            return await expand(task, self._writer, self._config.expand)
        except Rejected as stop:
            return stop.reject


def _contents(config: DataConfig, other: Step) -> dict[str, str]:
    """The digests of the sources.

    Raises:
        UserError: a source is missing, or the other step that reads seeds has put different ones into this folder.
    """
    contents, path = source_contents(config), config.folder / RECORDS[other]
    if path.is_file():
        facts = read_record(path)["facts"]
        found = {name: facts["config"].get(name) for name in ("seed", *SEED_FACTS)} | facts["inputs"]
        wanted = relevant({name: getattr(config, name) for name in ("seed", *SEED_FACTS)}) | contents
        if found != wanted:
            raise UserError(
                f"{config.folder}: {SEEDS} was made by the step {other} with other settings; changed: "
                f"{difference(found, wanted)}; undo the change, or choose another root"
            )
    return contents


def _ingest(config: DataConfig, rejects: JsonlStore) -> dict[str, int]:
    """Sources -> `seeds.jsonl`, as a stream: nothing holds all rows."""
    read: list[HowRead] = []
    counts = asyncio.run(ingest(ingest_tasks(config, read), config.folder, rejects))
    print("\n".join(map(str, read)), flush=True)
    require_some("seeds", counts, REJECTS, ADVICE)
    numbers = {"seeds": counts.tasks, "seeds rejected": counts.rejected}
    return numbers | {f"(seed: {reason})": number for reason, number in counts.reasons.items()}


def _tasks(config: DataConfig) -> Iterator[StageOneTask]:
    return stage_one_tasks(ingested_seeds(config.folder), config)


def _finish(config: DataConfig, result: Result) -> dict[str, int]:
    require_some("Stage I", result.counts, REJECTS, ADVICE)
    files = [config.folder / name for name in (CANDIDATES, DIALOGUES, DUPLICATES)]
    counts = without(result.counts, deduplicate(*files, config.quality.near_duplicates))
    numbers = {**result.before, **counts.as_dict()}
    write_stage_one_stats(config.folder, numbers, result.usage)
    return numbers


def without(counts: Counts, dropped: Mapping[str, int]) -> Counts:
    """The counts with some of the kept rows among the rejected ones, by reason."""
    number, reasons = sum(dropped.values()), Counter(counts.reasons) + Counter(dropped)
    return Counts(counts.tasks, counts.kept - number, counts.rejected + number, dict(reasons.most_common()))
