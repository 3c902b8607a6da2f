"""Benchmarks: JSONL files of dialogues whose user turns are fixed. File name = benchmark name.

To add one: put a `Dialogue` JSONL file where the config's `benchmarks` patterns find it, and, if the paper has a column
for it, a line in `PAPER_COLUMNS`.
"""

import glob
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from safer_steer.dialogue import Dialogue
from safer_steer.errors import UserError
from safer_steer.store import read_jsonl

# Benchmark (file name, lower case) -> column of Table 3.
PAPER_COLUMNS = {
    "beaver": "STEER-Beaver",
    "mmsafe": "STEER-MMSafe",
    "vls": "STEER-VLS",
    "spa": "STEER-SPA",
    "dys": "STEER-DyS",
}


@dataclass(frozen=True)
class BenchmarkDialogue:
    """A dialogue to play, where it comes from, and the folder its picture paths are relative to."""

    benchmark: str
    dialogue: Dialogue
    folder: Path

    @property
    def task_id(self) -> str:
        """The dialogue's id: stable over runs."""
        return self.dialogue.id


def paper_column(benchmark: str) -> str | None:
    """The column of Table 3 for a benchmark, None when the paper has none."""
    return PAPER_COLUMNS.get(benchmark.lower().removeprefix("steer").lstrip("-_"))


def benchmark_files(patterns: Iterable[str]) -> dict[str, Path]:
    """Benchmark name -> file, for all files that match one of the patterns, by name.

    Raises:
        UserError: two files have the same name.
    """
    found: dict[str, Path] = {}
    for path in sorted({Path(name) for pattern in patterns for name in glob.glob(pattern, recursive=True)}):
        if path.stem in found:
            raise UserError(
                f"two benchmarks are called {path.stem!r}: {found[path.stem]} and {path}; rename one of the files"
            )
        found[path.stem] = path
    return dict(sorted(found.items()))


def read_benchmarks(patterns: list[str], limit: int | None = None) -> list[BenchmarkDialogue]:
    """All dialogues of all benchmarks, in file order; at most `limit` of each.

    Raises:
        UserError: no file matches, a row is not valid, two dialogues share an id, or there is no dialogue at all.
    """
    files = benchmark_files(patterns)
    if not files:
        raise UserError(
            f"no benchmark file matches {', '.join(patterns)}; run the data stage first, or correct benchmarks"
        )
    dialogues: dict[str, BenchmarkDialogue] = {}
    for name, path in files.items():
        for number, dialogue in enumerate(read_jsonl(path, Dialogue)):
            if limit is not None and number >= limit:
                break
            if dialogue.id in dialogues:
                other = dialogues[dialogue.id].benchmark
                raise UserError(
                    f"dialogue {dialogue.id} is in benchmark {other} and again in {name}; ids must be unique"
                )
            dialogues[dialogue.id] = BenchmarkDialogue(name, dialogue, path.parent)
    if not dialogues:
        raise UserError(
            f"the benchmark files hold no dialogue: {', '.join(map(str, files.values()))}; run the data stage again"
        )
    return list(dialogues.values())


def most_pictures(dialogues: Iterable[Dialogue]) -> int:
    """The largest number of pictures in one conversation, at least 1: what a server has to allow."""
    return max((sum(len(d.images_at(i)) for i in range(len(d.turns))) for d in dialogues), default=1) or 1


def picture_paths(dialogue: Dialogue, folder: Path) -> list[list[Path]]:
    """For each turn the files of the pictures shown at it."""
    return [[folder / image for image in dialogue.images_at(i)] for i in range(len(dialogue.turns))]
