"""Makes single-turn benchmarks of seeds: every seed becomes a dialogue of one turn, asked as it is.

Input: seeds.jsonl files of data construction (rows with a `Seed` under `seed`) or of plain `Seed` rows, pictures next
to the file. Output: one benchmark per source, `<output>/<source>.jsonl`; pictures of data construction stay where they
are, others are copied. Seeds of other data sets, of the train side, and of another split than the benchmark's are left
out and counted.

    python -m evaluation.single_turn.prepare SEEDS [SEEDS ...] --output outputs/single_turn/data/single_turn [--limit N]
"""

if __name__ == "__main__":  # before the imports below, which take seconds
    from safer_steer import interrupts

    interrupts.watch()

import argparse
import os
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, model_validator

from evaluation.benchmarks import benchmark
from safer_steer.cli import exit_code
from safer_steer.dialogue import Dialogue, Seed, Turn, dialogue_id
from safer_steer.errors import ImageError, UserError
from safer_steer.images import ImageStore, load_image
from safer_steer.picture_files import is_stored, picture_file
from safer_steer.row_files import BadRow, read_rows
from safer_steer.store import write_jsonl


def single_turn(seed: Seed, seeds: Path, output: Path) -> Dialogue:
    """One seed as a dialogue of one turn.

    It is `benign` only where the source says that the instruction is safe (`meta.kind`, as VLGuard does): over-refusal
    is measured on these. Everything else of a safety benchmark counts as `red_team`.
    """
    kind = "benign" if seed.meta.get("kind") == "safe" else "red_team"
    category = seed.meta.get("category") or seed.meta.get("harmful_category")
    images = [] if seed.image is None else [_placed(seeds.parent, seed.image, output)]
    meta = seed.meta | {"seed": seed.id} | ({"category": category} if isinstance(category, str) else {})
    name = dialogue_id(seed.source, seed.id, kind, None, [seed.question])
    turn = Turn(user=seed.question, images=list(range(len(images))))
    return Dialogue(id=name, source=seed.source, kind=kind, strategy=None, images=images, turns=[turn], meta=meta)


def _placed(folder: Path, image: str, output: Path) -> str:
    """The picture's path relative to `output`: of one in a picture store where it is, of any other that of a copy.

    One that cannot be read keeps its name: the evaluation rejects its row and says why.
    """
    try:
        path = picture_file(folder, image)
        if not is_stored(path):
            path = output / ImageStore(output).put(load_image(path))
    except ImageError:
        path = folder / image
    return os.path.relpath(path, output)


class SeedLine(BaseModel):
    """A line of a seeds file: a seed alone, or nested under `seed` next to what data construction says of it."""

    seed: Seed
    split: str = "bench"

    def left_out(self) -> str | None:
        """Why the seed is not of a single-turn benchmark; None where it is of one."""
        known, own = benchmark(self.seed.source), self.seed.meta.get("data_split")
        if self.split != "bench":
            return f"{self.split} side"
        if not known.single_turn:
            return f"{self.seed.source} is no single-turn benchmark of evaluation/benchmarks.py"
        if own is not None and own != known.data_split:
            return f"{self.seed.source} {own}, the benchmark is {known.data_split}"
        return None

    @model_validator(mode="before")
    @classmethod
    def _alone(cls, data: Any) -> Any:
        return data if isinstance(data, dict) and "seed" in data else {"seed": data}


@dataclass
class Prepared:
    """Source -> number of rows written; reason -> number of seeds left out; lines that are no seed."""

    rows: dict[str, int]
    left_out: Counter[str]
    bad: list[BadRow]


def prepare(files: list[Path], output: Path, limit: int | None = None) -> Prepared:
    """Writes the benchmarks; at most `limit` rows of each.

    Raises:
        UserError: not one seed is of a single-turn benchmark.
    """
    rows: dict[str, dict[str, Dialogue]] = defaultdict(dict)
    left_out, bad = Counter[str](), list[BadRow]()
    for path in files:
        for line in read_rows(path, SeedLine):
            if isinstance(line, BadRow):
                bad.append(line)
            elif reason := line.left_out():
                left_out[reason] += 1
            elif limit is None or len(rows[line.seed.source]) < limit:
                row = single_turn(line.seed, path, output)
                rows[line.seed.source][row.id] = row
    if not rows:
        found = [f"{len(bad)} bad rows; the first: {bad[0].detail}"] if bad else []
        found += [f"{number} left out: {reason}" for reason, number in left_out.items()]
        raise UserError(
            f"no seed of a single-turn benchmark in {', '.join(map(str, files))} ({'; '.join(found) or 'empty'}); "
            "run data construction first: configs/data_construction/single_turn.yaml"
        )
    counts = {source: write_jsonl(output / f"{source}.jsonl", found.values()) for source, found in sorted(rows.items())}
    return Prepared(counts, left_out, bad)


def main() -> int:
    """Parses the command line; 0 on success, 2 after an error a user can fix."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seeds", nargs="+", type=Path, metavar="SEEDS")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--limit", type=int, help="rows of each source")
    arguments = parser.parse_args()

    def run() -> None:
        made = prepare(arguments.seeds, arguments.output, arguments.limit)
        if bad := made.bad:
            rejects = arguments.output / "rejects" / "rejects.jsonl"
            write_jsonl(rejects, (row.as_dict() for row in bad))
            print(f"{len(bad)} rows are no seeds; the first: {bad[0].detail}; all: {rejects}")
        for reason, number in made.left_out.items():
            print(f"{number} seeds left out: {reason}")
        print("; ".join(f"{arguments.output}/{source}.jsonl: {count} rows" for source, count in made.rows.items()))

    return exit_code(run)


if __name__ == "__main__":
    sys.exit(main())
