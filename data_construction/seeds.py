"""Ingest: the rows of every source -> `seeds.jsonl`, pictures decoded once, stored by content; bad rows -> rejects."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from data_construction.config import DataConfig, SourceConfig
from data_construction.sources import READERS, SourceRow
from safer_steer.dialogue import Kind, Seed
from safer_steer.images import ImageStore, load_image
from safer_steer.rows import Counts, Reject, process_rows
from safer_steer.store import JsonlStore

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class SeedRow(BaseModel):
    """An ingested seed: `id` is "ORIGIN/SEED ID", `origin` the source's name in the config.

    The seed's image is relative to the data folder.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    id: str
    origin: str
    split: Literal["train", "bench"]
    benchmark: str | None
    kinds: list[Kind]
    seed: Seed
    meta: dict[str, Any] = {}


@dataclass(frozen=True)
class IngestTask:
    """One row of a source."""

    task_id: str
    key: str
    origin: str
    row: SourceRow
    source: SourceConfig
    kinds: list[Kind]
    repeated: bool = False


def ingest_tasks(config: DataConfig) -> list[IngestTask]:
    """One task for each row of every source; a second row of the same id becomes a task that is rejected."""
    tasks: list[IngestTask] = []
    seen: dict[str, int] = {}
    for origin, source in config.sources.items():
        for number, row in enumerate(READERS[source.reader](Path(source.path), source.fields)):
            if source.limit is not None and number >= source.limit:
                break
            key = f"{origin}/{row.id}"
            seen[key] = seen.get(key, 0) + 1
            again = f"#{seen[key]}" if seen[key] > 1 else ""
            tasks.append(
                IngestTask(f"ingest/{key}{again}", key, origin, row, source, config.kinds_of(source), bool(again))
            )
    return tasks


async def ingest(tasks: Sequence[IngestTask], folder: Path, rejects: JsonlStore) -> tuple[list[SeedRow], Counts]:
    """Decodes and stores what is not there yet; returns all usable seeds in the order of the sources."""
    images = ImageStore(folder)

    async def work(task: IngestTask) -> SeedRow | Reject:
        return _seed_row(task, images)

    with JsonlStore(folder / "seeds.jsonl") as kept:
        counts = await process_rows(tasks, work, kept=kept, rejects=rejects, label="seeds", concurrency=1)
        rows = {row.id: row for row in kept.rows(SeedRow)}
    return [rows[task.key] for task in tasks if not task.repeated and task.key in rows], counts


def _seed_row(task: IngestTask, images: ImageStore) -> SeedRow | Reject:
    row, source = task.row, task.source
    if task.repeated:
        return Reject("repeated seed id", f"{task.key} was there before")
    if row.problem:
        return Reject("bad seed", row.problem)
    if row.picture is None:
        return Reject("no picture", f"seed {task.key} has no picture")
    benchmark = None
    if source.split == "bench":
        benchmark = str(source.benchmark or row.meta.get("benchmark") or task.origin)
        if not _FILE_NAME.fullmatch(benchmark):
            return Reject(
                "bad seed", f"benchmark {benchmark!r} cannot be a file name; use letters, digits, '_', '-' and '.'"
            )
    stored = images.put(load_image(row.picture, root=row.root))
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
        kinds=task.kinds,
        seed=seed,
        meta={"task": task.task_id},
    )
