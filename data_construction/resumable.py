"""How a step of Stage II does its tasks: what is done stays done, the rest is asked for, counts hold over both.

Within a task nothing is lost either: every finished call is in `cache.sqlite` before the next one is made, and a task's
requests depend on nothing but its row and the answers so far. A dialogue that is begun again after a kill asks for the
same turns, finds them there, and pays only from the turn it had not finished.
"""

import asyncio
from collections.abc import Sequence

from data_construction.config import STAGE_ROLES, DataConfig, Step
from data_construction.engines import MakeWork, open_engine
from data_construction.roles import endpoints
from safer_steer.rows import Counts, Task, TaskResults, check_transport, count_results, process_twice
from safer_steer.runs import Run
from safer_steer.store import JsonlStore


def run_tasks(
    config: DataConfig, step: Step, run: Run, tasks: Sequence[Task], make_work: MakeWork, *, kept: str, rejects: str
) -> Counts:
    """Does a step's tasks that have no result yet; starts no service and opens no client when there is none.

    Args:
        config: the run's config.
        step: whose roles to call.
        run: the step's run, for its usage.
        tasks: all tasks of the step, with unique ids.
        make_work: makes the function that does one task, out of the config and the roles' clients.
        kept: name of the JSONL file for results in the data folder.
        rejects: name of the JSONL file for tasks without one.

    Returns:
        Counts over all tasks.

    Raises:
        UserError: an endpoint does not answer.
        RunAborted: too many tasks reached no model.
    """
    with JsonlStore(config.folder / kept) as good, JsonlStore(config.folder / rejects) as bad:
        results = TaskResults(good, bad, with_transport=False)
        if all(results.of(task) is not None for task in tasks):
            return count_results(tasks, good, bad)
        with endpoints(config, STAGE_ROLES[step]) as wanted:
            return asyncio.run(_call(config, step, run, tasks, make_work, wanted, good, bad))


async def _call(
    config: DataConfig,
    step: Step,
    run: Run,
    tasks: Sequence[Task],
    make_work: MakeWork,
    wanted: dict,
    kept: JsonlStore,
    rejects: JsonlStore,
) -> Counts:
    async with open_engine(config, wanted, make_work, run) as engine:
        counts = await process_twice(
            lambda: tasks,
            engine.work,
            kept=kept,
            rejects=rejects,
            label=step,
            concurrency=config.concurrency,
            max_transport_rate=config.max_transport_rate,
        )
        check_transport(rejects, counts.tasks, config.max_transport_rate, step)
        return counts
