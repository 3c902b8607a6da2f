"""A data set declared: where its files and pictures lie, what its fields are called; one reader for all of them.

    files (by split, layouts in order of preference) -> records -> `adapt` -> field map -> `SourceRow`

Rows are yielded one at a time and nothing but the row (for parquet one small batch) is in memory, so a source of any
length can be read; iterate, never list. Text stays as it is: a placeholder such as `<image>` in it is text.
"""

import hashlib
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from data_construction.sources.hub import Place, locate
from data_construction.sources.pictures import Pictures
from data_construction.sources.records import Record, read_records
from data_construction.sources.row import BadRow, SourceRow
from safer_steer.dialogue import stable_hash
from safer_steer.errors import UserError

FIELDS = ("id", "source", "image", "question", "answer", "meta")
Names = str | tuple[str, ...]
Adapt = Callable[[dict[str, Any], Path, str], Iterator[dict[str, Any]]]


@dataclass(frozen=True)
class Source:
    """One data set.

    Attributes:
        name: its name in configs; also the `source` of its seeds, unless a field holds that.
        what: one line for the listing.
        licence: as its card states it, None when the card states none.
        hub: its id on the Hugging Face hub.
        splits: split -> globs of record files below the data folder, in order of preference: the first one that
            matches is read. The first split is read when none is asked for.
        other_splits: the same for any other split, whose name stands for "{split}"; empty: there is no other.
        fields: our field -> theirs; alternatives as a tuple; "a.b" reaches into objects; "meta.x" is put into meta.
        folders: folders, in the data folder or in an archive, that picture paths are relative to; "{split}" as above.
        archives: zip or tar files with pictures, relative to the data folder; "{split}" as above.
        adapt: (record, its file, split) -> the seeds in it, as records that `fields` fits; it raises `BadRow`.
    """

    name: str
    what: str
    licence: str | None
    hub: str | None
    splits: Mapping[str, Sequence[str]]
    fields: Mapping[str, Names]
    folders: Sequence[str] = ()
    archives: Sequence[str] = ()
    adapt: Adapt | None = None
    other_splits: Sequence[str] = ()

    def read(
        self,
        path: str | Path,
        fields: Mapping[str, str] | None = None,
        split: str | None = None,
        where: Mapping[str, Any] | None = None,
        *,
        pictures: bool = True,
        local_only: bool = False,
    ) -> Iterator[SourceRow]:
        """Yields the split's seeds in the order of its files, those that cannot be used included.

        Args:
            path: local file or folder, or hub id (see `hub.locate`).
            fields: our field -> theirs, over the source's own map.
            split: one of `splits`; None: the first.
            where: their field -> the value or list of values that a record must have to be a seed.
            pictures: False leaves the pictures out, for counting.
            local_only: never download.

        Raises:
            UserError: no such path, split or field, or no record file of the source below the path.
        """
        names = self._names(fields or {})
        split = self._split(split)
        place = locate(path, self._downloads(split), local_only=local_only)
        files = [place.file] if place.file else self._files(place.root, split)
        if not files:
            globs = ", ".join(self._globs(split))
            raise UserError(f"no {self.name} file below {path}: looked for {globs}; correct sources.*.path")
        left_out = frozenset() if pictures else frozenset(_alternatives(names["image"]))
        with closing(self._pictures(place, split)) as finder:
            reading = _Reading(place.root, split, names, where or {}, finder if pictures else None)
            for file in files:
                for record in read_records(file, left_out):
                    yield from self._rows(record, file, reading)

    def count(
        self,
        path: str | Path,
        fields: Mapping[str, str] | None = None,
        split: str | None = None,
        where: Mapping[str, Any] | None = None,
        limit: int | None = None,
    ) -> int:
        """How many seeds `read` would yield, up to `limit`; reads no picture and downloads nothing."""
        rows = self.read(path, fields, split, where, pictures=False, local_only=True)
        return sum(1 for _ in islice(rows, limit))

    def check(self, fields: Mapping[str, str], split: str | None) -> None:
        """Checks a field map and a split before anything is read.

        Raises:
            UserError: the source does not know a name.
        """
        self._names(fields)
        self._split(split)

    def _names(self, fields: Mapping[str, str]) -> dict[str, Names]:
        unknown = sorted(name for name in fields if name not in FIELDS and not re.fullmatch(r"meta\.\w+", name))
        if unknown:
            raise UserError(
                f"source {self.name}: fields maps unknown name(s) {', '.join(unknown)}; allowed: "
                f"{', '.join(FIELDS)} and meta.NAME"
            )
        return {"id": "id", "source": (), "image": "image", "answer": (), "meta": ()} | dict(self.fields) | dict(fields)

    def _split(self, split: str | None) -> str:
        if split is None:
            return next(iter(self.splits))
        if split not in self.splits and not self.other_splits:
            raise UserError(f"source {self.name} has no split {split!r}; choose from: {', '.join(self.splits)}")
        return split

    def _globs(self, split: str) -> list[str]:
        return [glob.replace("{split}", split) for glob in self.splits.get(split, self.other_splits)]

    def _downloads(self, split: str) -> list[str]:
        """What to download, as hub patterns, in which "*" matches "/" too and "**/" wants a folder."""
        beside = [*self.archives, *(f"{folder}/*" for folder in self.folders if folder)]
        globs = self._globs(split)
        top = [glob.removeprefix("**/") for glob in globs if glob.startswith("**/")]
        return [*globs, *top, *(name.replace("{split}", split) for name in beside)]

    def _files(self, root: Path, split: str) -> list[Path]:
        for glob in self._globs(split):
            if files := [file for file in root.glob(glob) if file.is_file()]:
                return sorted(files, key=lambda file: _natural(file.relative_to(root).as_posix()))
        return []

    def _pictures(self, place: Place, split: str) -> Pictures:
        folders, archives = (
            [name.replace("{split}", split) for name in names] for names in (self.folders, self.archives)
        )
        return Pictures(place.root, place.store, folders, archives)

    def _rows(self, record: Record, file: Path, reading: "_Reading") -> Iterator[SourceRow]:
        at = f"{file.relative_to(reading.root).as_posix()}:{record.where.partition(' ')[2]}"
        place = f"{file}:{record.where}"
        if record.problem:
            yield SourceRow(at, problem=f"{place}: {record.problem}", reason="bad record")
            return
        try:
            for data in self.adapt(record.data, file, reading.split) if self.adapt else [record.data]:
                if _matches(data, reading.where):
                    yield self._row(data, at, place, file.parent, reading)
        except BadRow as bad:
            yield SourceRow(at, problem=f"{place}: {bad.detail}", reason=bad.reason)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:  # fields not of the card's types
            yield SourceRow(at, problem=f"{place}: {type(error).__name__}: {error}", reason="bad record")

    def _row(self, data: dict[str, Any], at: str, place: str, folder: Path, reading: "_Reading") -> SourceRow:
        value = {name: _value(data, theirs) for name, theirs in reading.names.items()}
        key = str(value["id"]) if _is_scalar(value["id"]) else ""
        known = {
            "answer": str(value["answer"]) if _is_scalar(value["answer"]) else None,
            "source": value["source"] if isinstance(value["source"], str) else self.name if self.hub else None,
            "meta": _meta(value),
        }
        question = value["question"]
        try:
            if not isinstance(question, str) or not question.strip():
                where = " or ".join(repr(name) for name in _alternatives(reading.names["question"]))
                raise BadRow("no question", f"no question in field {where}; got {question!r:.80}")
            if any("\ud800" <= letter <= "\udfff" for letter in f"{key}{question}{known['answer']}"):
                raise BadRow("bad record", "the text is not Unicode: it holds half of a surrogate pair")
            picture = reading.finder.find(value["image"], folder) if reading.finder else None
        except BadRow as bad:
            return SourceRow(key or at, problem=f"{place}: {bad.detail}", reason=bad.reason)
        return SourceRow(key or _content_id(value["image"], question), question.strip(), picture, **known)


@dataclass(frozen=True)
class _Reading:
    """What all rows of one `read` share."""

    root: Path
    split: str
    names: Mapping[str, Names]
    where: Mapping[str, Any]
    finder: Pictures | None


def _meta(value: Mapping[str, Any]) -> dict[str, Any]:
    whole = value["meta"] if isinstance(value["meta"], dict) else {}
    parts = {name[5:]: item for name, item in value.items() if name.startswith("meta.") and item is not None}
    return _plain(whole | parts)


def _plain(value: Any) -> Any:
    """The value as JSON can hold it; tables have dates, decimals, bytes and "not a number" too."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float):
        return value
    return f"({len(value)} bytes)" if isinstance(value, bytes) else str(value).encode("utf-8", "replace").decode()


def _alternatives(theirs: Names) -> tuple[str, ...]:
    return (theirs,) if isinstance(theirs, str) else theirs


def _value(data: Any, theirs: Names) -> Any:
    for dotted in _alternatives(theirs):
        found = _dig(data, dotted)
        if found is not None and not _is_nan(found):  # tables write NaN where they have nothing
            return found
    return None


def _dig(data: Any, dotted: str) -> Any:
    if isinstance(data, dict) and dotted in data:
        return data[dotted]  # names with a dot of their own
    for part in dotted.split("."):
        data = data.get(part) if isinstance(data, dict) else None
    return data


def _matches(data: dict[str, Any], where: Mapping[str, Any]) -> bool:
    for name, wanted in where.items():
        allowed = wanted if isinstance(wanted, list) else [wanted]
        if str(_dig(data, name)).lower() not in {str(item).lower() for item in allowed}:  # CSV holds True as text
            return False
    return True


def _is_scalar(value: Any) -> bool:
    return isinstance(value, str | int | float) and value != ""


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _content_id(image: Any, question: str) -> str:
    """16 hex digits of what the seed holds, for rows without an id: equal seeds have equal ids."""
    return stable_hash(_digest(image), question)


def _digest(value: Any) -> Any:
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    if isinstance(value, dict):
        return _digest(value["bytes"]) if value.get("bytes") else value
    return [_digest(item) for item in value] if isinstance(value, list | tuple) else value


def _natural(text: str) -> list[tuple[bool, int, str]]:
    """Sort key under which 9 comes before 10."""
    return [(not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", text)]
