"""Where a step's per-row function runs: in this process (`local`) or in the workers of a Ray cluster (`ray`).

An engine is only where model calls are made. Which tasks there are, what is kept, rejected or a duplicate, and every
file but the pictures and the answer cache is the business of the one process that runs the step, so both engines give
the same rows and a lost worker loses none.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from data_construction.config import DataConfig
from data_construction.engines.base import Engine, MakeWork
from safer_steer.llm import EndpointConfig
from safer_steer.runs import Run


@asynccontextmanager
async def open_engine(
    config: DataConfig, wanted: dict[str, EndpointConfig], make_work: MakeWork, run: Run
) -> AsyncIterator[Engine]:
    """The configured engine, running; what it called the roles for goes to the run's record, whatever happens.

    Args:
        config: `engine` names it.
        wanted: role -> endpoint to call.
        make_work: gives the per-row function from the config and a client for each role.
        run: the step's run.

    Raises:
        UserError: an endpoint does not answer, or the cluster is not there or cannot do the work.
    """
    if config.engine.name == "ray":  # imported only where wanted: Ray takes a second
        from data_construction.engines.ray_workers import open_ray as opened
    else:
        from data_construction.engines.local import open_local as opened
    async with opened(config, wanted, make_work) as engine:
        try:
            yield engine
        except BaseException:
            with suppress(Exception):  # workers may be gone; what ended the step is what counts
                run.add_usage(await engine.usage())
            raise
        run.add_usage(await engine.usage())


__all__ = ["Engine", "MakeWork", "open_engine"]
