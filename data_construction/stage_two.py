"""Stage II (Sec. 4.3): the train dialogues of the SFT pool -> `bootstrapped.jsonl`; resumes by task id.

Dialogues that ended early go to `bootstrap_rejects.jsonl` with their reason and the turns they got to.
"""

import asyncio
import json
from collections import Counter
from functools import partial
from pathlib import Path

from data_construction import stage_one
from data_construction.assemble.select import Pools, select
from data_construction.bootstrap.rollout import REWRITE, TURN_SCORES, BootstrapTask, RedBlueLoop
from data_construction.calls import Caller
from data_construction.config import STAGE_ROLES, DataConfig, Split
from data_construction.engines import open_engine
from data_construction.roles import endpoints
from data_construction.seeds import ingested_seeds
from safer_steer.dialogue import Dialogue, stable_hash
from safer_steer.errors import UserError
from safer_steer.llm import LLMClient
from safer_steer.rows import Counts, TaskResults, count_results, process_rows
from safer_steer.runs import Run
from safer_steer.store import JsonlStore, read_jsonl

RECORD = "run.stage2.json"
KEPT, REJECTS = "bootstrapped.jsonl", "bootstrap_rejects.jsonl"


def run_stage_two(config: DataConfig) -> None:
    """Bootstraps the dialogues; does nothing when an earlier run finished.

    Raises:
        UserError: Stage I is not finished, an endpoint does not answer, or every dialogue was lost.
    """
    folder = config.folder
    require_finished(folder, stage_one.RECORD, "stage1")
    guidelines = _read_guidelines(config)
    prompts = {"rewrite": REWRITE.hash, "turn_scores": TURN_SCORES.hash, "guidelines": stable_hash(guidelines)}
    inputs = {"dialogues": folder / "dialogues.jsonl"}
    with Run.open(folder, config.facts("stage2"), stage="stage 2", inputs=inputs, prompts=prompts, file=RECORD) as run:
        if run.finished:
            run.say_finished()
            return
        with JsonlStore(folder / KEPT) as kept, JsonlStore(folder / REJECTS) as rejects:
            tasks = bootstrap_tasks(config)
            results = TaskResults(kept, rejects, with_transport=False)
            usage: dict = {}
            if any(results.of(task) is None for task in tasks):
                with endpoints(config, STAGE_ROLES["stage2"]) as wanted:
                    counts, usage = asyncio.run(_bootstrap(config, guidelines, tasks, wanted, kept, rejects))
            else:
                counts = count_results(tasks, kept, rejects)
            counts = with_keep_rule(counts, [row["meta"] for row in kept.rows()])
        if counts.kept == 0:
            reasons = ", ".join(f"{number} {reason}" for reason, number in counts.reasons.items()) or "there were none"
            raise UserError(
                f"Stage II: none of {counts.tasks} dialogues could be kept ({reasons}); see {KEPT} and {REJECTS}, "
                "then change bootstrap.tau_safe and tau_help, the guidelines or the endpoints"
            )
        run.finish(counts.as_dict(), usage)


def bootstrap_tasks(config: DataConfig) -> list[BootstrapTask]:
    """The train dialogues of the SFT pool, as many as configured, in hash order."""
    pools = Pools.of(config, ingested_seeds(config.folder))
    rows = [row for row in read_jsonl(config.folder / "dialogues.jsonl", Dialogue) if pools.pool(row) == "sft"]
    wanted = Split(size=config.bootstrap.candidates, mix=config.assemble.sft.mix)
    return [BootstrapTask(row) for row in select(rows, wanted, config.seed, "bootstrap")[0]]


async def _bootstrap(
    config: DataConfig, guidelines: str, tasks: list[BootstrapTask], wanted: dict, kept: JsonlStore, rejects: JsonlStore
):
    async with open_engine(config, wanted, partial(_red_blue_loop, guidelines)) as engine:
        counts = await process_rows(
            tasks,
            engine.work,
            kept=kept,
            rejects=rejects,
            label="stage 2",
            concurrency=config.concurrency,
            max_transport_rate=config.max_transport_rate,
        )
        return counts, await engine.usage()


def _red_blue_loop(guidelines: str, config: DataConfig, clients: dict[str, LLMClient]) -> RedBlueLoop:
    return RedBlueLoop(Caller(clients, config.folder, config.seed), config.bootstrap, guidelines)


def with_keep_rule(counts: Counts, metas: list[dict]) -> Counts:
    """The counts with the dialogues that the keep rule drops among the rejected ones."""
    dropped = Counter(meta["reason"] for meta in metas if not meta["keep"])
    number = sum(dropped.values())
    return Counts(
        counts.tasks, counts.kept - number, counts.rejected + number, counts.reasons | dict(dropped.most_common())
    )


def _read_guidelines(config: DataConfig) -> str:
    path = Path(config.bootstrap.guidelines)
    if not path.is_file():
        raise UserError(f"guidelines not found: {path}; correct bootstrap.guidelines")
    return path.read_text(encoding="utf-8")


def require_finished(folder: Path, record: str, step: str) -> None:
    """Checks that an earlier step went to its end.

    Raises:
        UserError: it did not.
    """
    path = folder / record
    if not path.is_file() or json.loads(path.read_text(encoding="utf-8"))["status"] != "finished":
        raise UserError(f"{folder}: step {step} is not finished; put it into steps and run the same command again")
