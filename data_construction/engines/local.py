"""Engine `local`: one process, one event loop, as many tasks in flight as `concurrency` says."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from data_construction.config import DataConfig
from data_construction.engines.base import Engine, MakeWork
from data_construction.roles import CACHE, open_clients, usage_of
from safer_steer.llm import EndpointConfig


@asynccontextmanager
async def open_local(
    config: DataConfig, wanted: dict[str, EndpointConfig], make_work: MakeWork
) -> AsyncIterator[Engine]:
    """Clients for the roles in this process.

    Raises:
        UserError: an endpoint does not answer or does not serve the role's model.
    """
    async with open_clients(wanted, config.folder / CACHE) as clients:

        async def usage() -> dict[str, dict]:
            return usage_of(clients)

        yield Engine(make_work(config, clients), usage)
