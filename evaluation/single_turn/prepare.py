"""Makes single-turn benchmarks of seeds: every seed becomes a dialogue of one turn, asked as it is.

Input: seeds.jsonl files of data construction (rows with a `Seed` under `seed`) or of plain `Seed` rows, pictures next
to the file. Output: one benchmark per source, `<output>/<source>.jsonl`; pictures of data construction stay where they
are, others are copied.

    python -m evaluation.single_turn.prepare SEEDS [SEEDS ...] --output outputs/steer/data/single_turn [--limit N]
"""

if __name__ == "__main__":  # before the imports below, which take seconds
    from safer_steer import interrupts

    interrupts.watch()

import argparse
import os
import sys
from collections import defaultdict
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

    @model_validator(mode="before")
    @classmethod
    def _alone(cls, data: Any) -> Any:
        return data if isinstance(data, dict) and "seed" in data else {"seed": data}


def prepare(
    files: list[Path], output: Path, limit: int | None = None, bad: list[BadRow] | None = None
) -> dict[str, int]:
    """Writes the benchmarks; at most `limit` rows of each. Returns source -> number of rows.

    Rows that are no seed are added to `bad`.

    Raises:
        UserError: a source is not registered as a single-turn benchmark, or there is no seed at all.
    """
    rows: dict[str, dict[str, Dialogue]] = defaultdict(dict)
    bad = [] if bad is None else bad
    for path in files:
        for line in read_rows(path, SeedLine):
            if isinstance(line, BadRow):
                bad.append(line)
                continue
            seed = line.seed
            if not benchmark(seed.source).single_turn:
                raise UserError(
                    f"{path}: source {seed.source!r} is not a single-turn benchmark; add a line for it to BENCHMARKS "
                    "in evaluation/benchmarks.py, or leave these seeds out"
                )
            if limit is None or len(rows[seed.source]) < limit:
                row = single_turn(seed, path, output)
                rows[seed.source][row.id] = row
    if not rows:
        found = f" but {len(bad)} bad rows; the first: {bad[0].detail}" if bad else ""
        raise UserError(f"no seed in {', '.join(map(str, files))}{found}; run data construction first")
    return {source: write_jsonl(output / f"{source}.jsonl", found.values()) for source, found in sorted(rows.items())}


def main() -> int:
    """Parses the command line; 0 on success, 2 after an error a user can fix."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seeds", nargs="+", type=Path, metavar="SEEDS")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--limit", type=int, help="rows of each source")
    arguments = parser.parse_args()

    def run() -> None:
        bad: list[BadRow] = []
        counts = prepare(arguments.seeds, arguments.output, arguments.limit, bad)
        if bad:
            rejects = arguments.output / "rejects" / "rejects.jsonl"
            write_jsonl(rejects, (row.as_dict() for row in bad))
            print(f"{len(bad)} rows are no seeds; the first: {bad[0].detail}; all: {rejects}")
        print("; ".join(f"{arguments.output}/{source}.jsonl: {count} rows" for source, count in counts.items()))

    return exit_code(run)


if __name__ == "__main__":
    sys.exit(main())
