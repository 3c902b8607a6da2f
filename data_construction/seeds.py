"""Ingest: the rows of every source -> `seeds.jsonl`, pictures decoded once, stored by content; bad rows -> rejects.

Rows stream: sources are read one row at a time as places become free, and a few pictures are decoded at once.
"""

import asyncio
import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from heapq import nsmallest
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from data_construction.config import DataConfig, SourceConfig
from data_construction.injector import Injection, inject
from data_construction.sources import SOURCES, SourceRow
from data_construction.sources.record import HowRead
from safer_steer.dialogue import Kind, Seed, stable_hash
from safer_steer.images import ImageStore, load_image
from safer_steer.picture_digest import file_digest
from safer_steer.row_choice import places, require_ids
from safer_steer.rows import Counts, Reject, process_rows
from safer_steer.store import JsonlStore, read_jsonl

SEEDS = "seeds.jsonl"
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
MAX_DECODERS = 8  # threads; decoding leaves the interpreter to others


class SeedRow(BaseModel):
    """An ingested seed: `id` is "ORIGIN/SEED ID", `origin` the source's name in the config.

    The seed's image is relative to the data folder. `injected` is the picture that the row's red-team dialogues show
    in its place.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    id: str
    origin: str
    split: Literal["train", "bench"]
    benchmark: str | None
    kinds: list[Kind]
    seed: Seed
    injected: Injection | None = None
    meta: dict[str, Any] = {}

    def with_injected(self) -> "SeedRow":
        """The row as its red-team dialogues see it."""
        if self.injected is None:
            return self
        return self.model_copy(update={"seed": self.seed.model_copy(update={"image": self.injected.image})})


@dataclass(frozen=True)
class IngestTask:
    """One row of a source."""

    task_id: str
    key: str
    origin: str
    row: SourceRow
    source: SourceConfig
    config: DataConfig
    repeated: bool = False


def ingest_tasks(config: DataConfig, read: list[HowRead] | None = None) -> Iterator[IngestTask]:
    """One task for each row of every source; a second row of the same id becomes a task that is rejected.

    A task may hold its picture's bytes: iterate, never list. How each file was read is added to `read`.
    """
    seen: Counter[str] = Counter()
    for origin, source in config.sources.items():
        for row in _taken(origin, source, config.seed, read):
            key = f"{origin}/{row.id}"
            seen[key] += 1
            again = seen[key] > 1
            task_id = f"repeated/{key}#{seen[key]}" if again else f"ingest/{key}"  # an id may end in #2 itself
            yield IngestTask(task_id, key, origin, row, source, config, again)


def source_contents(config: DataConfig) -> dict[str, str]:
    """For fingerprints, source -> digest of what is read of it: its record files and its pictures.

    Raises:
        UserError: a source is missing.
    """
    found = {}
    for origin, source in config.sources.items():
        read: list[HowRead] = []
        pictures = hashlib.sha256()
        for row in _taken(origin, source, config.seed, read):
            content = file_digest(row.picture) if isinstance(row.picture, Path) else row.picture
            pictures.update(content if isinstance(content, bytes) else str(content).encode("utf-8", "replace"))
        files = [(how.path.name, file_digest(how.path)) for how in read]
        found[f"source {origin}"] = stable_hash(files, pictures.hexdigest())
    return found


def _taken(origin: str, source: SourceConfig, seed: int, read: list[HowRead] | None = None) -> Iterator[SourceRow]:
    """A source's rows, `limit` of them where it has one: data sets are sorted, so their first rows are all of a kind.

    Drawing reads the records twice, once without pictures to find the rows that have what a seed needs.
    """
    reader = SOURCES[source.reader]
    arguments = (source.path, source.fields, source.data_split, source.where)
    if source.ids:
        found = set()
        for row in reader.read(*arguments, read=read):
            if row.id in source.ids:
                found.add(row.id)
                yield row
        require_ids(source.ids, found, f"sources.{origin}.ids", source.path)
        return
    wanted = places(source.limit)
    if source.limit is None or source.take == "first" or isinstance(source.limit, str):
        yield from islice(reader.read(*arguments, read=read), wanted.start, wanted.stop)
        return
    usable = (number for number, row in enumerate(reader.read(*arguments, pictures=False)) if not row.problem)
    drawn = set(nsmallest(source.limit, usable, key=lambda number: stable_hash(seed, origin, number)))
    if len(drawn) < source.limit:  # all are taken, and those that cannot be used are rejected with their reasons
        yield from reader.read(*arguments, read=read)
        return
    for number, row in enumerate(islice(reader.read(*arguments, read=read), max(drawn) + 1)):
        if number in drawn:
            yield row


async def ingest(tasks: Iterable[IngestTask], folder: Path, rejects: JsonlStore) -> Counts:
    """Decodes and stores what is not there yet; then `seeds.jsonl` holds all usable seeds, about in sources' order."""
    images = ImageStore(folder)

    async def work(task: IngestTask) -> SeedRow | Reject:
        return await asyncio.to_thread(_seed_row, task, images)

    decoders = min(MAX_DECODERS, os.cpu_count() or 1)
    with JsonlStore(folder / SEEDS) as kept:
        return await process_rows(tasks, work, kept=kept, rejects=rejects, label="seeds", concurrency=decoders)


def ingested_seeds(folder: Path) -> Iterator[SeedRow]:
    """The usable seeds, after `ingest`."""
    return read_jsonl(folder / SEEDS, SeedRow)


def _data_split(source: SourceConfig) -> dict[str, str]:
    """The data set's own split, of which a seed's source is a part; a reader of any data set knows none."""
    reader = SOURCES[source.reader]
    return {} if reader.any_data_set else {"data_split": reader.split(source.data_split)}


def _seed_row(task: IngestTask, images: ImageStore) -> SeedRow | Reject:
    row, source, config = task.row, task.source, task.config
    if task.repeated:
        return Reject("repeated seed id", f"{task.key} was there before")
    if row.problem:
        return Reject(row.reason, row.problem)
    if row.picture is None and source.pictures == "required":
        return Reject("no picture", f"seed {task.key} has no picture; sources.{task.origin}.pictures=optional takes it")
    benchmark = None
    if source.split == "bench":
        benchmark = str(source.benchmark or row.meta.get("benchmark") or task.origin)
        if not _FILE_NAME.fullmatch(benchmark):
            return Reject(
                "bad seed", f"benchmark {benchmark!r} cannot be a file name; use letters, digits, '_', '-' and '.'"
            )
    picture = None if row.picture is None else load_image(row.picture)
    stored = None if picture is None else images.put(picture)
    kinds = config.kinds_of(source)
    injected = None
    if "red_team" in kinds and picture is not None:
        injected = inject(task.key, stored, picture, config.injector, config.seed, images)
    seed = Seed(
        id=row.id,
        source=row.source or task.origin,
        image=stored,
        question=row.question,
        answer=row.answer,
        meta=row.meta | _data_split(source),
    )
    return SeedRow(
        id=task.key,
        origin=task.origin,
        split=source.split,
        benchmark=benchmark,
        kinds=kinds,
        seed=seed,
        injected=injected,
        meta={"task": task.task_id},
    )
