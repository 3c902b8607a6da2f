"""Benchmarks: JSONL files of dialogues whose user turns are fixed. File name = benchmark name.

To add one: put a `Dialogue` JSONL file where the config's `benchmarks` patterns find it and, when it is a single-turn
set or the paper has a column for it, a line in `BENCHMARKS`. A file of another name is a multi-turn benchmark of its
own column.
"""

import glob
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

from safer_steer.dialogue import Dialogue
from safer_steer.errors import UserError
from safer_steer.picture_files import picture_file
from safer_steer.row_choice import chosen_dialogues, require_ids, some_bad
from safer_steer.row_files import BadRow


@dataclass(frozen=True)
class Benchmark:
    """What is known of a benchmark.

    Attributes:
        column: its column in the tables.
        table: the paper's table that has the column, None when there is none.
        single_turn: one question a row, passed with score 3 (Table 2), instead of turn means (Table 3).
        data_split: the data set's own split that a single-turn benchmark consists of; no other one's rows belong to it.
    """

    column: str
    table: str | None = None
    single_turn: bool = False
    data_split: str | None = None


# Benchmark (file name without "steer", case and punctuation) -> what is known of it, in the paper's order.
BENCHMARKS: dict[str, Benchmark] = {
    "beaver": Benchmark("STEER-Beaver", "table3"),
    "mmsafe": Benchmark("STEER-MMSafe", "table3"),
    "vls": Benchmark("STEER-VLS", "table3"),
    "spa": Benchmark("STEER-SPA", "table3"),
    "dys": Benchmark("STEER-DyS", "table3"),
    "beavertailsv": Benchmark("Beavertails-V", "table2", single_turn=True, data_split="test"),
    "mmsafety": Benchmark("MM-Safety", "table2", single_turn=True, data_split="SD_TYPO"),
    "mmsafetybench": Benchmark("MM-Safety", "table2", single_turn=True, data_split="SD_TYPO"),
    "spavl": Benchmark("SPA-VL", "table2", single_turn=True, data_split="test"),
    "vlguard": Benchmark("VLGuard", "table2", single_turn=True, data_split="test"),
    "vlsbench": Benchmark("VLSBench", "table2", single_turn=True, data_split="all"),
}


@cache
def benchmark(name: str) -> Benchmark:
    """What is known of a benchmark by its file name; an unregistered one is multi-turn, under its own name."""
    key = "".join(char for char in name.lower() if char.isalnum()).removeprefix("steer")
    return BENCHMARKS.get(key, Benchmark(name))


def paper_order(name: str) -> tuple[int, str]:
    """Sort key of benchmark names: the registered ones in the paper's order, then the others by name."""
    known = list(dict.fromkeys(BENCHMARKS.values()))
    found = benchmark(name)
    return (known.index(found) if found in known else len(known)), name


@dataclass(frozen=True)
class BenchmarkDialogue:
    """A dialogue to play, where it comes from, and the folder its picture paths are relative to.

    Of a dialogue that is played several times `repeat` counts the samples from 1; each is a row of its own.
    """

    benchmark: str
    dialogue: Dialogue
    folder: Path
    repeat: int = 1

    @property
    def task_id(self) -> str:
        """The row's id, stable over runs: the dialogue's, with the number of a further sample."""
        return self.dialogue.id if self.repeat == 1 else f"{self.dialogue.id}#{self.repeat}"


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


def read_benchmarks(
    patterns: list[str],
    limit: int | str | None = None,
    bad: list[BadRow] | None = None,
    *,
    ids: Collection[str] = (),
    repeats: int = 1,
) -> list[BenchmarkDialogue]:
    """All dialogues of all benchmarks, in file order.

    Args:
        patterns: globs of the files.
        limit: which ones of each file, see `row_choice.places`; None: all.
        bad: rows that are no dialogue, whose id is there already, or that are too long for a single-turn set are added
            to this list, up to the last dialogue that is taken; with `ids` those of these ids.
        ids: of the dialogues to take; empty: all.
        repeats: samples of each dialogue.

    Raises:
        UserError: no file matches, an id is in none of them, or there is no dialogue at all.
    """
    files = benchmark_files(patterns)
    if not files:
        raise UserError(
            f"no benchmark file matches {', '.join(patterns)}; run the data stage first, or correct benchmarks"
        )
    dialogues: list[BenchmarkDialogue] = []
    known: dict[str, str] = {}  # id -> benchmark, of all that may be played
    bad = [] if bad is None else bad
    for name, path in files.items():
        taken = chosen_dialogues(path, limit, ids, bad, partial(_problem, name=name, known=known))
        dialogues += [BenchmarkDialogue(name, row, path.parent) for row in taken]
    where = ", ".join(map(str, files.values()))
    require_ids(ids, known, "ids", where, bad)
    if not dialogues:
        none = f"limit={limit} takes none of the {len(known)} dialogues" if known else "no usable dialogue"
        raise UserError(f"{none} in {where}{some_bad(bad)}; correct the {'limit' if known else 'file'}")
    samples = [replace(item, repeat=number) for item in dialogues for number in range(1, repeats + 1)]
    if clash := known.keys() & {item.task_id for item in samples if item.repeat > 1}:
        raise UserError(f"repeats: {clash.pop()!r} is the id of a dialogue and would be that of a sample; rename it")
    return samples


def _problem(dialogue: Dialogue, name: str, known: dict[str, str]) -> tuple[str, str] | None:
    """Why a dialogue cannot be played as one of a benchmark: reason and detail; one that can is known from now on."""
    if dialogue.id in known:
        return "repeated id", f"is in benchmark {known[dialogue.id]} already; ids must be unique"
    if benchmark(name).single_turn and len(dialogue.turns) != 1:
        said = f"has {len(dialogue.turns)} turns, but {name} is a single-turn benchmark"
        return "not single-turn", f"{said}; rename the file, or keep one turn per row"
    known[dialogue.id] = name
    return None


def most_pictures(dialogues: Iterable[Dialogue]) -> int:
    """The largest number of pictures in one conversation, at least 1: what a server has to allow."""
    return max((sum(len(d.images_at(i)) for i in range(len(d.turns))) for d in dialogues), default=1) or 1


def picture_paths(dialogue: Dialogue, folder: Path) -> list[list[Path]]:
    """For each turn the files of the pictures shown at it.

    Raises:
        ImageError: the dialogue names a file that is none of its pictures, see `picture_file`.
    """
    return [[picture_file(folder, image) for image in dialogue.images_at(i)] for i in range(len(dialogue.turns))]
