"""A user's dialogues in place of Stage I's: any file of `Dialogue` rows -> `dialogues.jsonl`, for the steps after it.

Pictures are decoded and stored as those of seeds are; a row that cannot be used goes to `rejects.jsonl` with its
reason. A dialogue's new id is a hash of what it says and shows, as in Stage I, and `meta.seed` holds its own. A larger
`limit` or other `ids` make only what is missing.
"""

import asyncio
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

from data_construction.calls import Caller
from data_construction.config import DataConfig
from data_construction.seeds import SEEDS
from data_construction.stage_one import DIALOGUES, REJECTS
from data_construction.step import require_some, step
from safer_steer.dialogue import Dialogue, dialogue_id
from safer_steer.engine import Work
from safer_steer.images import ImageStore, load_image
from safer_steer.picture_digest import dialogue_pictures
from safer_steer.picture_files import picture_file
from safer_steer.row_choice import chosen_dialogues, require_ids
from safer_steer.row_files import BadRow
from safer_steer.stage import Result, Stage
from safer_steer.store import JsonlStore


@dataclass(frozen=True)
class OwnTask:
    """A dialogue of the file."""

    row: Dialogue
    folder: Path

    @property
    def task_id(self) -> str:
        """By the row's own id."""
        return f"own/{self.row.id}"


def own_dialogues(config: DataConfig) -> Stage:
    """Takes the dialogues in.

    Raises:
        UserError: there is no such file, or an id is not in it.
    """
    own, bad = config.dialogues, list[BadRow]()
    tasks = cache(partial(own_tasks, config, bad))

    def before(_: JsonlStore) -> dict[str, int]:
        (config.folder / SEEDS).touch()  # there are none
        return {}

    def after(result: Result) -> dict[str, int]:
        require_some("dialogues", result.counts, REJECTS, "correct the rows")
        return result.counts.as_dict()

    stage = step(
        config,
        "stage1",
        _store,
        tasks,
        bad=bad,
        facts={},
        inputs={"dialogues": Path(own.path)},
        contents=lambda: {"pictures": dialogue_pictures(own.path)},
        prompts=(),
        grows=True,
        ordered=True,
        before=before,
        after=after,
        kept=DIALOGUES,
        rejects=REJECTS,
    )
    return replace(stage, name="dialogues")


def own_tasks(config: DataConfig, bad: list[BadRow]) -> list[OwnTask]:
    """The dialogues that the config chooses; rows that cannot be used are added to `bad`."""
    own, known = config.dialogues, set[str]()

    def problem(row: Dialogue) -> tuple[str, str] | None:
        if row.id in known:
            return "repeated id", "is there already; ids must be unique"
        known.add(row.id)
        return None

    path = Path(own.path)
    tasks = [OwnTask(row, path.parent) for row in chosen_dialogues(path, own.limit, own.ids, bad, problem)]
    require_ids(own.ids, known, "dialogues.ids", own.path, bad)
    return tasks


def _store(config: DataConfig, caller: Caller) -> Work:
    images = ImageStore(config.folder)

    async def work(task: OwnTask) -> Dialogue:
        return await asyncio.to_thread(_row, task, images)

    return work


def _row(task: OwnTask, images: ImageStore) -> Dialogue:
    row = task.row
    pictures = [images.put(load_image(picture_file(task.folder, name))) for name in row.images]
    content = [*pictures, *(turn.user for turn in row.turns)]
    meta = {"task": task.task_id, "seed": task.task_id, "split": "train"} | ({"own": row.meta} if row.meta else {})
    turns = [turn.model_copy(update={"scores": None}) for turn in row.turns]
    new_id = dialogue_id(row.source, row.id, row.kind, row.strategy, content)
    return row.model_copy(update={"id": new_id, "images": pictures, "turns": turns, "meta": meta})
