"""The benchmarks' pictures as the model under test sees them: resized once, before any server starts, kept as files.

The judge, an adaptive tutor and the report read the same files, so all of them see what the model saw.
"""

import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from evaluation.benchmarks import BenchmarkDialogue, picture_paths
from safer_steer.errors import ImageError, UserError
from safer_steer.images import ImageStore, decode_image, fit_image
from safer_steer.picture_files import is_stored
from safer_steer.picture_size import PictureSize, image_settings, limit_problem
from safer_steer.progress import ProgressBar


def missing_pictures(tasks: Sequence[BenchmarkDialogue]) -> list[str]:
    """What is wrong with each dialogue whose pictures are not there or may not be named; no picture is read."""
    found = []
    for task in tasks:
        try:
            paths = (path for turn in picture_paths(task.dialogue, task.folder) for path in turn)
            if absent := next((path for path in paths if not path.is_file()), None):
                found.append(f"{task.task_id}: picture not found: {absent}")
        except ImageError as error:
            found.append(f"{task.task_id}: {error}")
    return found


class ShownPictures:
    """Pictures at the size that one model sees.

    Args:
        size: the sizes of that model.
        folder: where resized pictures are stored; what is stored there already is used again.
    """

    def __init__(self, size: PictureSize, folder: Path):
        self.size, self._folder = size, folder
        self._known: dict[Path, Path | ImageError] = {}

    def of(self, task: BenchmarkDialogue) -> list[list[Path]]:
        """For each turn the files of the pictures shown at it.

        Raises:
            ImageError: one is missing, unreadable, or not among the dialogue's own.
        """
        return [[self._shown(path) for path in paths] for paths in picture_paths(task.dialogue, task.folder)]

    def file(self, path: Path) -> Path:
        """The file shown for a picture of a dialogue; its own where no turn shows it."""
        found = self._known.get(path)
        return found if isinstance(found, Path) else path

    def prepare(self, tasks: Sequence[BenchmarkDialogue], label: str) -> None:
        """Reads and resizes every picture; says how many dialogues have an unusable one, which are rejected later.

        Raises:
            UserError: no dialogue can be played.
        """
        paths, problems = [], {}
        for task in tasks:
            try:
                paths += [path for turn in picture_paths(task.dialogue, task.folder) for path in turn]
            except ImageError as error:
                problems[task.task_id] = str(error)
        distinct = list(dict.fromkeys(paths))
        with ProgressBar(f"{label}: pictures", len(distinct)) as bar, ThreadPoolExecutor(os.cpu_count()) as pool:
            for _ in pool.map(self._try, distinct):
                bar.advance()
        for task in tasks:
            try:
                self.of(task)
            except ImageError as error:
                problems[task.task_id] = str(error)
        if not problems:
            return
        first, reason = next(iter(problems.items()))
        said = f"{len(problems)} of {len(tasks)} dialogues have an unusable picture; the first: {first}: {reason}"
        if len(problems) == len(tasks):
            raise UserError(f"{label}: {said}; nothing was started; correct the benchmark files")
        print(f"{label}: {said}; they are rejected", file=sys.stderr, flush=True)

    def _try(self, path: Path) -> None:
        try:
            self._known[path] = self._make(path)
        except ImageError as error:
            self._known[path] = error

    def _shown(self, path: Path) -> Path:
        if path not in self._known:
            self._try(path)
        found = self._known[path]
        if isinstance(found, ImageError):
            raise found
        return found

    def _make(self, path: Path) -> Path:
        picture = decode_image(path)
        fitted = fit_image(picture, self.size)
        if fitted is picture and is_stored(path):
            return path
        return self._folder / ImageStore(self._folder).put(fitted)


def served_size(checkpoint: str, max_pixels: int, *, agree: bool) -> tuple[PictureSize, int | None]:
    """The sizes that a checkpoint sees, and the limit to give its server; None where it takes none.

    Args:
        checkpoint: folder or hub name.
        max_pixels: largest area to show.
        agree: refuse a checkpoint that was trained with another limit.

    Raises:
        UserError: the checkpoint was made for another picture size.
    """
    settings = image_settings(checkpoint)
    if settings is None:  # another family: its pictures come no larger, and its processor has limits of its own
        return PictureSize(max_pixels=max_pixels), None
    if agree and (problem := limit_problem(settings, max_pixels)):
        raise UserError(
            f"{checkpoint}: {problem}; set max_pixels to that value for all models, or say that this one differs: "
            "models.NAME.max_pixels=..."
        )
    return PictureSize.of(settings, max_pixels), max_pixels
