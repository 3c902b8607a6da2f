"""Where a stage's tasks are done: in this process, or in the workers of a Ray cluster (`ray_workers`).

An engine is only where models are called. Which tasks there are, what is kept or rejected, and every file but the
answer cache is the business of the one process that runs the stage, so all engines give the same rows.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from safer_steer.config import Section
from safer_steer.llm import EndpointConfig, LLMClient, ResponseCache
from safer_steer.rows import Reject

CACHE = "cache.sqlite"  # in the stage's folder
Clients = Mapping[str, LLMClient]
Work = Callable[[Any], Awaitable[BaseModel | Reject]]
MakeWork = Callable[[Clients], Work]


@dataclass(frozen=True)
class Engine:
    """Where tasks are done: `work` gives one task's row or reject, `usage` what each role was called for."""

    work: Work
    usage: Callable[[], Awaitable[dict[str, dict]]]


class RayEngine(Section):
    """Workers of a Ray cluster; each gets an equal share of every role's limits.

    All nodes must see `root`, have this package and, where endpoints ask for keys, have them in their environment.
    """

    name: Literal["ray"]
    workers: Annotated[int, Field(ge=1)] = 2
    """Processes, one CPU each, spread over the nodes."""
    address: Annotated[str, Field(pattern=r"^(auto|[^/:\s]+:\d+)$")] | None = None
    """Of a running cluster, "auto" (the one this machine belongs to) or HOST:PORT; None: starts Ray on this machine."""


@asynccontextmanager
async def open_here(
    make_work: MakeWork, endpoints: Mapping[str, EndpointConfig], cache_folder: Path | None
) -> AsyncIterator[Engine]:
    """This process, with a client for each role that was checked to find its model; answers are kept in a folder.

    Raises:
        UserError: an endpoint does not answer or does not serve the role's model.
    """
    cache, unused = None, False
    try:
        async with AsyncExitStack() as stack:
            clients = {role: LLMClient(role, endpoint) for role, endpoint in endpoints.items()}
            for client in clients.values():
                stack.push_async_callback(client.close)
            for client in clients.values():
                await client.check()
            # Not before: a folder in which nothing was made is free for the corrected command.
            cache = ResponseCache(cache_folder / CACHE) if cache_folder else None
            for client in clients.values():
                client.cache = cache

            async def usage() -> dict[str, dict]:
                return {role: client.stats() for role, client in clients.items()}

            yield Engine(make_work(clients), usage)
    finally:
        if cache:
            unused = cache.is_empty()
            cache.close()
        if cache_folder and unused:
            (cache_folder / CACHE).unlink(missing_ok=True)
