"""The models a step calls: services started and always stopped, one client for each role, answers cached on disk."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

from data_construction.config import DataConfig, Role
from safer_steer.llm import EndpointConfig, LLMClient, ResponseCache
from safer_steer.servers import referenced, start_services, with_service_urls

CACHE = "cache.sqlite"  # in the data folder


@contextmanager
def endpoints(config: DataConfig, roles: Sequence[Role]) -> Iterator[dict[str, EndpointConfig]]:
    """The roles' endpoints, with the services that they name running."""
    wanted = {role: config.roles[role].from_environment(role) for role in roles}
    with start_services(referenced(config.services, wanted.values()), config.folder / "logs") as urls:
        yield {role: with_service_urls(endpoint, urls) for role, endpoint in wanted.items()}


@asynccontextmanager
async def open_clients(wanted: dict[str, EndpointConfig], cache_path: Path) -> AsyncIterator[dict[str, LLMClient]]:
    """Clients that share one response cache; each has been checked to find its model.

    Raises:
        UserError: an endpoint does not answer or does not serve the role's model.
    """
    cache = ResponseCache(cache_path)
    try:
        async with AsyncExitStack() as stack:
            clients = {role: LLMClient(role, endpoint, cache) for role, endpoint in wanted.items()}
            for client in clients.values():
                stack.push_async_callback(client.close)
            for client in clients.values():
                await client.check()
            yield clients
    finally:
        cache.close()


def usage_of(clients: dict[str, LLMClient]) -> dict[str, dict]:
    """What each role was called for, for `run.json`."""
    return {role: client.stats() for role, client in clients.items()}
