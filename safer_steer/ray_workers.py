"""A stage's tasks in the workers of a Ray cluster, on one machine or several.

The stage's process stays the only one that reads tasks and writes rows; it hands each task to a worker and waits for
its row or reject. A worker that dies is started again by Ray and its tasks are done again, from the answers it had
paid for: those lie in one cache, which a small actor next to the stage's process keeps for all workers.
"""

import os
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from safer_steer.addresses import is_loopback
from safer_steer.dialogue import stable_hash
from safer_steer.engine import CACHE, Engine, MakeWork, RayEngine
from safer_steer.errors import UserError
from safer_steer.llm import EndpointConfig, LLMClient, ResponseCache
from safer_steer.rows import Reject, Task
from safer_steer.usage import merge_usage

os.environ.setdefault("RAY_WARN_BLOCKING_GET_INSIDE_ASYNC", "0")  # RemoteCache does so, for half a millisecond

import ray
from ray.exceptions import RayActorError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

RETRIES = 3  # of a task whose worker died
KNOCK_S = 5.0
OBJECT_STORE_BYTES = 128 * 1024 * 1024  # rows are small; without it Ray takes a third of the memory


class CacheKeeper:
    """Holds the answer cache for all workers."""

    def __init__(self, path: Path):
        self._path = path

    @cached_property
    def _cache(self) -> ResponseCache:
        """Opened by the first call: a folder in which nothing was made is free for the corrected command."""
        return ResponseCache(self._path)

    def get(self, key: str) -> str | None:
        """The answer, or None."""
        return self._cache.get(key)

    def put(self, key: str, answer: str) -> None:
        """Stores an answer."""
        self._cache.put(key, answer)


class RemoteCache(ResponseCache):
    """A worker's view of the cache."""

    def __init__(self, keeper: Any):
        self._keeper = keeper
        self._writes: list[Any] = []  # not known to have ended yet

    def get(self, key: str) -> str | None:
        """The answer, or None."""
        answer: str | None = ray.get(self._keeper.get.remote(key))
        return answer

    def put(self, key: str, answer: str) -> None:
        """Stores an answer; a later `get` of this worker finds it.

        Raises:
            UserError: an earlier answer could not be stored.
        """
        self._writes.append(self._keeper.put.remote(key, answer))
        ended, self._writes = ray.wait(self._writes, num_returns=len(self._writes), timeout=0)
        try:
            ray.get(ended)
        except RayTaskError as error:
            raise error.cause from error

    def close(self) -> None:
        """Nothing to close here."""


class Worker:
    """Makes rows of tasks, many at once, in one event loop."""

    def __init__(self, folder: Path, wanted: dict[str, EndpointConfig], make_work: MakeWork, keeper: Any):
        cache = RemoteCache(keeper)
        self._folder = folder
        self._clients = {role: LLMClient(role, endpoint, cache) for role, endpoint in wanted.items()}
        self._work = make_work(self._clients)

    async def check(self) -> None:
        """Checks what the worker's node must offer.

        Raises:
            UserError: the data folder cannot be seen, or an endpoint does not answer.
        """
        if not self._folder.is_dir():
            node = ray.util.get_node_ip_address()
            raise UserError(f"node {node} does not see {self._folder}; put root on a file system that all nodes share")
        for client in self._clients.values():
            await client.check()

    async def work(self, task: Task) -> BaseModel | Reject:
        """One task's row or reject."""
        return await self._work(task)

    async def usage(self) -> tuple[dict[str, dict], bool]:
        """What each role was called for since this worker started, and whether it had to be started again."""
        restarted = ray.get_runtime_context().was_current_actor_reconstructed
        return {role: client.stats() for role, client in self._clients.items()}, restarted


@asynccontextmanager
async def open_ray(
    make_work: MakeWork,
    endpoints: Mapping[str, EndpointConfig],
    folder: Path,
    concurrency: int,
    cluster: RayEngine,
) -> AsyncIterator[Engine]:
    """Workers of a cluster, checked, that share one answer cache in a folder and so many tasks in flight.

    Raises:
        UserError: the cluster is not there or too small, or a worker's node lacks what it needs.
    """
    number, folder = cluster.workers, folder.resolve()
    wanted = {role: endpoint.share(number) for role, endpoint in endpoints.items()}
    with _connected(cluster):
        _check_cluster(number, wanted)
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        keeper = ray.remote(CacheKeeper).options(
            num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here
        )
        worker = ray.remote(Worker).options(
            num_cpus=1,
            max_concurrency=concurrency + 1,
            max_restarts=-1,
            max_task_retries=RETRIES,
            scheduling_strategy="SPREAD",
        )
        cache = keeper.remote(folder / CACHE)
        workers = [worker.remote(folder, wanted, make_work, cache) for _ in range(number)]
        try:
            await _check_workers(workers)
            yield Engine(lambda task: _work(workers, task), lambda: _usage(workers))
        finally:
            for actor in (*workers, cache):
                ray.kill(actor)


@contextmanager
def _connected(cluster: RayEngine) -> Iterator[None]:
    if ray.is_initialized():  # by the program that calls us; it is not ours to end
        yield
        return
    options: dict[str, Any] = {
        "address": cluster.address or "local",
        "log_to_driver": False,
        "logging_level": "warning",
    }
    if cluster.address is None:
        options |= {"num_cpus": cluster.workers, "object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False}
    try:
        _knock(cluster.address)
        ray.init(**options)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"engine.address {cluster.address!r}: no Ray cluster could be reached ({error}); start one with "
            "`ray start`, correct the address, or leave it out to use this machine"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _knock(address: str | None) -> None:
    """Tries HOST:PORT for a few seconds; Ray itself would try for minutes.

    Raises:
        OSError: nobody answers there.
    """
    if address and ":" in address:
        host, port = address.rsplit(":", 1)
        socket.create_connection((host, int(port)), timeout=KNOCK_S).close()


def _check_cluster(workers: int, wanted: dict[str, EndpointConfig]) -> None:
    cpus = int(ray.cluster_resources().get("CPU", 0))
    if cpus < workers:
        raise UserError(f"engine.workers is {workers}, but the Ray cluster has {cpus} CPU(s); a worker takes one")
    machines = len({node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]})
    loopback = [role for role, endpoint in wanted.items() if any(map(is_loopback, endpoint.urls()))]
    if machines > 1 and loopback:
        raise UserError(
            f"{', '.join(loopback)}: an endpoint on loopback (a service of this run has one) cannot be reached from "
            f"all {machines} machines of the Ray cluster; give an address that they reach"
        )


async def _check_workers(workers: list[Any]) -> None:
    try:
        for actor in workers:
            await _result(actor.check.remote())
    except RayActorError as error:
        raise UserError(
            f"engine ray: a worker could not be started ({str(error)[:500]}); every node needs this package, in the "
            "same version, and its requirements"
        ) from error


async def _work(workers: list[Any], task: Task) -> BaseModel | Reject:
    """Tasks of one `group`, which some have, go to one worker, so that the calls they share are made once."""
    actor = workers[int(stable_hash(getattr(task, "group", task.task_id)), 16) % len(workers)]
    try:
        done: BaseModel | Reject = await _result(actor.work.remote(task))
        return done
    except RayActorError as error:
        return Reject("worker lost", f"its worker died {RETRIES + 1} times: {error}"[:300], outcome="transport")


async def _result(reference: Any) -> Any:
    """A worker's answer, or its own error rather than Ray's wrapping of it."""
    try:
        return await reference
    except RayTaskError as error:
        raise error.cause from error


async def _usage(workers: list[Any]) -> dict[str, dict]:
    found = [await _result(actor.usage.remote()) for actor in workers]
    if restarted := sum(again for _, again in found):
        note = "what it had called for before is not counted"
        print(f"engine ray: {restarted} worker(s) died and were started again; {note}", file=sys.stderr)
    return merge_usage([usage for usage, _ in found])
