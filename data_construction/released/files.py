"""Whole released files -> our files, and back: rows as a stream, pictures stored once by content, bad rows rejected.

A picture's name is looked up below one folder: as it is, then without its first parts, so that names of the authors'
machine (`/data/x/images/1.png`) are found where the pictures lie.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from data_construction.released.formats import Format, to_dialogue, to_released
from data_construction.sources import row as source_row
from data_construction.sources.record import Record
from data_construction.sources.records import read_records
from safer_steer.dialogue import Dialogue
from safer_steer.errors import ImageError, UserError
from safer_steer.images import ImageStore, load_image
from safer_steer.picture_field import unwrapped
from safer_steer.picture_files import is_file, picture_file
from safer_steer.row_files import BadRow, read_rows
from safer_steer.store import write_jsonl

# Their file, without "steer" and punctuation -> our benchmark; names that their own single-turn sets have too.
SUBSETS = {"beavertails": "beaver", "beavertailsv": "beaver", "mmsafety": "mmsafe", "mmsafetybench": "mmsafe"}
SUBSETS |= {"vlsbench": "vls", "spavl": "spa"}


@dataclass
class Converted:
    """What became of the rows."""

    written: Counter[Path] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    systems: Counter[str] = field(default_factory=Counter)
    rejects: list[BadRow] = field(default_factory=list)

    def say(self) -> str:
        """One line for each file, the system prompts, and the rejects by reason."""
        lines = [f"{path}: {number:,} rows" for path, number in self.written.items()]
        lines.append("kinds: " + ", ".join(f"{number:,} {kind}" for kind, number in sorted(self.kinds.items())))
        for system, number in self.systems.most_common():
            lines.append(f"{number:,} rows have a system prompt, in meta.system: {' '.join(system.split()):.80}")
        reasons = Counter(row.reason for row in self.rejects)
        return "\n".join([*lines, *(f"rejected: {number:,} {reason}" for reason, number in reasons.most_common())])


def read_released(form: Format, files: Sequence[Path], output: Path, pictures: Path | None = None) -> Converted:
    """Writes `output/steer_sft.jsonl`, `steer_rl.jsonl`, or `steer_bench/NAME.jsonl` for each file, with the pictures.

    Args:
        form: of the files.
        files: JSONL, JSON or parquet.
        output: folder, as `${root}/data` of data construction.
        pictures: folder with the pictures; None: that of each file.

    Raises:
        UserError: a file is missing, two files would have one name, or none has a row that can be used.
    """
    done = Converted()
    for target, members in _targets(form, files, output).items():
        ids: set[str] = set()
        rows = (row for file in members for row in _dialogues(form, file, target, pictures or file.parent, ids, done))
        done.written[target] = write_jsonl(target, rows)
    return _finished(done, output / f"{form}_rejects.jsonl", files)


def write_released(form: Format, files: Sequence[Path], output: Path) -> Converted:
    """Writes each file of dialogues in the released format, under the same name, with its pictures.

    Raises:
        UserError: as `read_released`.
    """
    done = Converted()
    for file in files:
        target = output / (f"steer_{file.stem.removeprefix('steer_')}.jsonl")
        if target in done.written:
            raise UserError(f"two files are called {file.stem}; write them into folders of their own")
        done.written[target] = write_jsonl(target, _released(form, file, ImageStore(output), done))
    return _finished(done, output / f"{form}_rejects.jsonl", files)


def _targets(form: Format, files: Sequence[Path], output: Path) -> dict[Path, list[Path]]:
    if form != "bench":
        return {output / f"steer_{form}.jsonl": list(files)}
    found: dict[Path, list[Path]] = {}
    for file in files:
        key = "".join(char for char in file.stem.lower() if char.isalnum()).removeprefix("steer")
        found.setdefault(output / "steer_bench" / f"{SUBSETS.get(key, key)}.jsonl", []).append(file)
    if doubled := next((members for members in found.values() if len(members) > 1), None):
        raise UserError(f"{' and '.join(map(str, doubled))} are one subset by their names; give one at a time")
    return found


def _dialogues(
    form: Format, file: Path, target: Path, pictures: Path, ids: set[str], done: Converted
) -> Iterator[Dialogue]:
    if not file.is_file():
        raise UserError(f"file not found: {file}")
    store, source = ImageStore(target.parent), f"steer_{target.stem.removeprefix('steer_')}"
    for record in read_records(file):
        try:
            if record.problem:
                raise source_row.BadRow("bad record", record.problem)
            row = to_dialogue(record.data, form, source, lambda name: store.put(_load(name, pictures)))
            if row.id in ids:
                raise source_row.BadRow("repeated row", "says and shows the same as an earlier row")
        except source_row.BadRow as problem:
            done.rejects.append(_bad(file, record, problem.reason, str(problem)))
        except ImageError as error:
            done.rejects.append(_bad(file, record, "unusable picture", str(error)))
        else:
            ids.add(row.id)
            done.kinds[row.kind] += 1
            done.systems.update([row.meta["system"]] if row.meta.get("system") else [])
            yield row


def _bad(file: Path, record: Record, reason: str, detail: str) -> BadRow:
    unit, _, number = record.where.partition(" ")
    place = number if unit == "line" else record.where  # FILE:3 for a line, FILE:item 3 in a document
    return BadRow(f"{file.name}:{place}", reason, f"{file}:{place}: {detail}")


def _load(value: Any, folder: Path) -> Any:
    found = unwrapped(value)
    if not isinstance(found, str):
        return load_image(found)
    parts = PurePosixPath(found.replace("\\", "/")).parts
    for start in range(len(parts)):
        try:
            path = picture_file(folder, str(PurePosixPath(*parts[start:])))
        except ImageError:  # it leads out of the folder
            continue
        if is_file(path):
            return load_image(path)
    raise ImageError(f"no file {found!r:.200} below {folder}; name the folder of the pictures with --pictures")


def _released(form: Format, file: Path, store: ImageStore, done: Converted) -> Iterator[dict[str, Any]]:
    for row in read_rows(file, Dialogue):
        if isinstance(row, BadRow):
            done.rejects.append(row)
            continue
        try:
            images = [store.put(load_image(picture_file(file.parent, name))) for name in row.images]
            made = to_released(row.model_copy(update={"images": images}), form)
        except source_row.BadRow as problem:
            done.rejects.append(BadRow(row.id, problem.reason, f"{file}: row {row.id}: {problem}"))
        except ImageError as error:
            done.rejects.append(BadRow(row.id, "unusable picture", f"{file}: row {row.id}: {error}"))
        else:
            done.kinds[row.kind] += 1
            yield made


def _finished(done: Converted, rejects: Path, files: Sequence[Path]) -> Converted:
    write_jsonl(rejects, [row.as_dict() for row in done.rejects])
    if not done.written.total():
        first = f"; the first: {done.rejects[0].detail}" if done.rejects else ""
        raise UserError(f"no row can be used of {', '.join(map(str, files))}{first}; see {rejects}")
    return done
