"""Ingest: the rows of every source -> `seeds.jsonl`, pictures decoded once, stored by content; bad rows -> rejects.

Rows stream: sources are read one row at a time, a few pictures are decoded at once, and the seeds are read back from
their file. What grows with the number of rows is one hash a row, by which repeated ids are found.
"""

import os
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from data_construction.config import DataConfig, SourceConfig
from data_construction.injector import Injection, inject
from data_construction.sources import SOURCES, SourceRow
from safer_steer.dialogue import Kind, Seed
from safer_steer.images import ImageError, ImageStore, load_image
from safer_steer.progress import ProgressBar
from safer_steer.rows import Counts, Reject
from safer_steer.store import JsonlStore, read_jsonl

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_PREFIX = "ingest/"
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
class SeedFile:
    """The usable seeds in the order of the sources, read from `seeds.jsonl` anew at every iteration."""

    path: Path

    def __iter__(self) -> Iterator[SeedRow]:
        return read_jsonl(self.path, SeedRow)


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


def ingest_tasks(config: DataConfig) -> Iterator[IngestTask]:
    """One task for each row of every source; a second row of the same id becomes a task that is rejected.

    A task may hold its picture's bytes: iterate, never list.
    """
    seen: set[int] = set()  # hashes of this process; the ids themselves would take several times the room
    again: Counter[str] = Counter()
    for origin, source in config.sources.items():
        rows = SOURCES[source.reader].read(source.path, source.fields, source.data_split, source.where)
        for number, row in enumerate(rows):
            if source.limit is not None and number >= source.limit:
                break
            key = f"{origin}/{row.id}"
            repeated = hash(key) in seen
            seen.add(hash(key))
            again[key] += repeated
            mark = f"#{again[key] + 1}" if repeated else ""
            yield IngestTask(f"{_PREFIX}{key}{mark}", key, origin, row, source, config, repeated)


async def ingest(tasks: Iterable[IngestTask], folder: Path, rejects: JsonlStore) -> tuple[SeedFile, Counts]:
    """Decodes and stores what is not there yet, in order; returns all usable seeds and the counts."""
    images, path, number = ImageStore(folder), folder / "seeds.jsonl", 0
    with (
        JsonlStore(path) as kept,
        ProgressBar("seeds", None) as bar,
        ThreadPoolExecutor(min(MAX_DECODERS, os.cpu_count() or 1)) as pool,
    ):
        done = kept.ids | {name for name in rejects.ids if name.startswith(_PREFIX)}
        waiting: deque[tuple[IngestTask, Future[SeedRow | Reject]]] = deque()
        for task in tasks:
            number += 1
            if task.task_id in done or (task.key in done and not task.repeated):
                bar.advance()
                continue
            waiting.append((task, pool.submit(_seed_row, task, images)))
            if len(waiting) >= 2 * MAX_DECODERS:
                _store(*waiting.popleft(), kept, rejects)
                bar.advance()
        while waiting:
            _store(*waiting.popleft(), kept, rejects)
            bar.advance()
        reasons = Counter(row["reason"] for row in rejects.rows() if row["id"].startswith(_PREFIX))
        counts = Counts(number, len(kept), sum(reasons.values()), dict(reasons.most_common()))
    return SeedFile(path), counts


def _store(task: IngestTask, result: Future, kept: JsonlStore, rejects: JsonlStore) -> None:
    row = result.result()
    if isinstance(row, Reject):
        rejects.append({"id": task.task_id, "reason": row.reason, "detail": row.detail, "outcome": None} | row.row)
    else:
        kept.append(row)


def _seed_row(task: IngestTask, images: ImageStore) -> SeedRow | Reject:
    row, source, config = task.row, task.source, task.config
    if task.repeated:
        return Reject("repeated seed id", f"{task.key} was there before")
    if row.problem:
        return Reject(row.reason, row.problem)
    if row.picture is None:
        return Reject("no picture", f"seed {task.key} has no picture")
    benchmark = None
    if source.split == "bench":
        benchmark = str(source.benchmark or row.meta.get("benchmark") or task.origin)
        if not _FILE_NAME.fullmatch(benchmark):
            return Reject(
                "bad seed", f"benchmark {benchmark!r} cannot be a file name; use letters, digits, '_', '-' and '.'"
            )
    try:
        picture = load_image(row.picture)
    except ImageError as error:
        return Reject("unusable picture", f"seed {task.key}: {error}")
    stored = images.put(picture)
    kinds = config.kinds_of(source)
    injected = None
    if "red_team" in kinds:
        injected = inject(task.key, stored, picture, config.injector, config.seed, images)
    seed = Seed(
        id=row.id,
        source=row.source or task.origin,
        image=stored,
        question=row.question,
        answer=row.answer,
        meta=row.meta,
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
