"""A stage is a value: what its results depend on, its tasks, and how one task is done. `run` does the rest.

The rest is the same for every step that calls models: the folder's lock, the record and its fingerprint, what the
machine must offer, services, clients, resuming by task id, a second pass over what was lost on the way to a model, the
limits, usage, and workers on other machines.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from safer_steer.aside import any_row, set_aside, take_out
from safer_steer.dialogue import stable_hash
from safer_steer.engine import Engine, MakeWork, RayEngine, open_here
from safer_steer.errors import UserError
from safer_steer.llm import EndpointConfig
from safer_steer.machine import Needs, require
from safer_steer.plan import Plan
from safer_steer.row_files import BadRow
from safer_steer.rows import (
    Counts,
    Reject,
    Task,
    TaskResults,
    check_transport,
    count_results,
    process_twice,
    task_of,
)
from safer_steer.runs import SERVICE, Run, is_finished
from safer_steer.servers import ServiceConfig, Starting, referenced, starting_services, with_service_urls
from safer_steer.store import JsonlStore, put_in_order
from safer_steer.weights import is_hub_id, weights_fingerprint


@dataclass(frozen=True)
class Result:
    """What there is when every task was tried: the stage's two files, its tasks, the counts that `before` gave, what
    each role was called for, and the rows that are no task.
    """

    kept: JsonlStore
    rejects: JsonlStore
    tasks: Callable[[], Iterable[Task]]
    before: Mapping[str, Any]
    usage: Mapping[str, Any]
    bad: Sequence[BadRow] = ()

    @cached_property
    def counts(self) -> Counts:
        """How the tasks ended, by the files as they are when this is first asked for."""
        counts = count_results(self.tasks(), self.kept, self.rejects)
        return counts.with_rejected(row.reason for row in self.bad)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step that calls models. Making the value costs nothing: files are read and models called by `run`.

    Attributes:
        name: for messages.
        folder: holds the record, the rows, the answer cache and the servers' logs.
        record: name of the record there.
        config: what the results depend on, by name: sections and plain values. Fields that are marked `Operational`
            do not count.
        inputs: name -> file, or folder of a checkpoint, that is read.
        contents: gives name -> digest of other inputs.
        prompts: name -> hash of the wording.
        roles: role -> endpoint that is called, with the environment's values filled in.
        services: those that endpoints may name.
        tasks: begins the stream of tasks, with unique ids; called several times.
        bad: rows of the input that are no task, there once `tasks` was read; they are rejected.
        work: makes the function that does one task out of the roles' clients. Can be pickled where `ray` is set.
        kept: name of the file of rows.
        rejects: name of the file of tasks without a row.
        open_rejects: opens it.
        before: called before the first task; gives counts for the record.
        after: called when all tasks were tried; checks, writes what follows from the rows, gives the record's counts.
        stored: called with every reject once it is on disk; may end the run.
        grows: whether the tasks may be others when the command is run again: what is done is kept, and rows of tasks
            that are not asked for now are set aside.
        again: which recorded rows are to be made once more; None: none.
        ordered: whether the rows are put into the order of the tasks, so that a resumed run ends with the same bytes.
        cached: whether answers are kept in the folder, so that a task that is begun again pays only for the rest.
        concurrency: tasks in flight.
        max_transport_rate: share of tasks lost on the way to a model, in [0, 1], above which the run stops.
        needs: of the machine.
        ray: workers to use; None for this process.
        following: gives the next stage, whose servers start while this one's start and work, as the machine holds both;
            None: they start when it is their turn.
        advice: what else may be done when the folder was made by another configuration.
    """

    name: str
    folder: Path
    record: str
    config: Mapping[str, Any]
    roles: Mapping[str, EndpointConfig]
    tasks: Callable[[], Iterable[Task]]
    work: MakeWork
    kept: str
    rejects: str
    concurrency: int
    max_transport_rate: float
    needs: Needs
    bad: Sequence[BadRow] = ()
    inputs: Mapping[str, Path] = field(default_factory=dict)
    contents: Callable[[], Mapping[str, str]] = dict
    prompts: Mapping[str, str] = field(default_factory=dict)
    services: Mapping[str, ServiceConfig] = field(default_factory=dict)
    open_rejects: Callable[[Path], JsonlStore] = JsonlStore
    before: Callable[[JsonlStore], Mapping[str, Any]] = lambda rejects: {}
    after: Callable[[Result], Mapping[str, Any]] = lambda result: {**result.before, **result.counts.as_dict()}
    stored: Callable[[Task, Reject], None] = lambda task, reject: None
    grows: bool = False
    again: Callable[[dict[str, Any]], bool] | None = None
    ordered: bool = False
    cached: bool = True
    ray: RayEngine | None = None
    following: "Callable[[], Stage] | None" = None
    advice: str = ""

    def facts(self) -> dict[str, Any]:
        """What the results depend on, for the record's fingerprint.

        Raises:
            UserError: a service's checkpoint is not there.
        """
        needed = self.needed()
        weights = {
            name: weights_fingerprint(service.vllm.checkpoint)
            for name, service in needed.items()
            if service.vllm is not None and not is_hub_id(service.vllm.checkpoint)
        }
        services = {SERVICE + name: service.facts() for name, service in needed.items()}
        return {**self.config, "roles": dict(self.roles), "weights": weights, **services}

    def needed(self) -> dict[str, ServiceConfig]:
        """The services that the stage's endpoints name.

        Raises:
            UserError: an endpoint names another one.
        """
        return referenced(self.services, self.roles.values())


def run(stages: Iterable[Stage], plan: Callable[[], Plan] | None = None) -> None:
    """Runs stages one after another; a finished one does nothing, a service that the next one needs too stays up.

    The plan of all of them is printed, and their keys are looked for, before the first call.

    Raises:
        UserError: another process holds a folder, or it was made by another configuration; an endpoint does not answer.
        RunAborted: too many tasks reached no model; what is done is kept.
    """
    with _Services() as services:
        for stage in stages:
            called = _run(stage, services, plan)
            plan = None if called else plan


def _run(stage: Stage, services: "_Services", plan: Callable[[], Plan] | None) -> bool:
    """Runs one stage; whether it called a model."""
    with Run.open(
        stage.folder,
        stage.facts(),
        stage=stage.name,
        inputs=stage.inputs,
        contents=stage.contents(),
        prompts=stage.prompts,
        file=stage.record,
        advice=stage.advice,
    ) as record:
        _reopen(stage, record)
        if record.finished:
            record.say_finished()
            return False
        require(stage.needs)
        kept = JsonlStore(stage.folder / stage.kept)
        with kept, stage.open_rejects(stage.folder / stage.rejects) as rejects:
            before = stage.before(rejects)
            total, open_tasks = _survey(stage, kept, rejects)
            for row in stage.bad:
                rejects.append(row.as_dict() | {"outcome": None})
            if open_tasks:
                if plan:
                    plan().announce()
                urls = services.urls(stage)
                asyncio.run(_call(stage, record, urls, kept, rejects, total))
            numbers = stage.after(Result(kept, rejects, stage.tasks, before, record.record.get("usage", {}), stage.bad))
        if stage.ordered:
            put_in_order(kept.path, [task.task_id for task in stage.tasks()], task_of)
        record.finish(numbers)
    return bool(open_tasks)


def _reopen(stage: Stage, record: Run) -> None:
    """Continues a finished run that has other tasks now, or rows to be made once more; puts its files in order."""
    files = [stage.folder / name for name in (stage.kept, stage.rejects)]
    if stage.grows:
        tasks = [task.task_id for task in stage.tasks()]
        record.expect(stable_hash([*tasks, *(row.id for row in stage.bad)]))
        if not record.finished:
            for path in files:
                set_aside(path, set(tasks))
    if stage.again and any_row(files, stage.again):
        record.reopen()
        for path in files:
            take_out(path, stage.again)


def _survey(stage: Stage, kept: JsonlStore, rejects: JsonlStore) -> tuple[int, int]:
    """How many tasks there are, and how many of them have no result yet."""
    results, total, left = TaskResults(kept, rejects, with_transport=False), 0, 0
    for task in stage.tasks():
        total, left = total + 1, left + (results.of(task) is None)
    return total, left


async def _call(
    stage: Stage, record: Run, urls: dict[str, str], kept: JsonlStore, rejects: JsonlStore, total: int
) -> None:
    endpoints = {role: with_service_urls(endpoint, urls) for role, endpoint in stage.roles.items()}
    async with _opened(stage, endpoints) as engine:
        try:
            await process_twice(
                stage.tasks,
                engine.work,
                kept=kept,
                rejects=rejects,
                label=stage.name,
                concurrency=stage.concurrency,
                max_transport_rate=stage.max_transport_rate,
                total=total,
                stored=stage.stored,
            )
        except BaseException:
            with suppress(Exception):  # workers may be gone; what ended the stage is what counts
                record.add_usage(await engine.usage())
            raise
        record.add_usage(await engine.usage())
    check_transport(rejects, total, stage.max_transport_rate, stage.name)


def _opened(stage: Stage, endpoints: Mapping[str, EndpointConfig]) -> AbstractAsyncContextManager[Engine]:
    if stage.ray is None:
        return open_here(stage.work, endpoints, stage.folder if stage.cached else None)
    from safer_steer.ray_workers import open_ray  # only where wanted: Ray takes a second

    return open_ray(stage.work, endpoints, stage.folder, stage.concurrency, stage.ray)


class _Servers:
    """The servers of one stage; none before `start`."""

    def __init__(self) -> None:
        self.services: dict[str, ServiceConfig] = {}
        self.starting = Starting()
        self.stack = ExitStack()

    def start(self, stage: Stage) -> None:
        """Starts what the stage needs, and does not wait for it."""
        services = stage.needed()
        self.starting = self.stack.enter_context(starting_services(services, stage.folder / "logs"))
        self.services = services

    @cached_property
    def urls(self) -> dict[str, str]:
        """Service -> address, once all of them answer."""
        return self.starting.ready()


class _Services:
    """The servers of the stage that runs now and, where they may start ahead, of the one that follows. The next stage
    starts others only if it needs others.
    """

    def __init__(self) -> None:
        self._now, self._ahead = _Servers(), _Servers()

    def urls(self, stage: Stage) -> dict[str, str]:
        """Service -> address, of all that the stage's endpoints name."""
        if stage.needed() != self._now.services:
            before, self._now = self._now, _Servers()
            before.stack.close()
            self._start_ahead(stage)
            self._now, self._ahead = self._ahead, _Servers()
        if stage.following:
            with suppress(UserError):  # said when its turn comes
                following = stage.following()
                if not is_finished(following.folder / following.record) and following.needed() != self._now.services:
                    self._start_ahead(following)
        return self._now.urls

    def _start_ahead(self, stage: Stage) -> None:
        if stage.needed() != self._ahead.services:
            self._ahead.stack.close()
            self._ahead = _Servers()
            self._ahead.start(stage)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        with self._ahead.stack:
            if self._now.services:
                self._now.starting.stop_too(self._ahead.starting)
            self._now.stack.__exit__(*error)  # an error that a dead server caused is reported with how the server ended
