"""A data set declared: where its files and pictures lie, what its fields are called; one reader for all of them.

    files (by split, layouts in order of preference) -> records -> `adapt` -> field map -> `SourceRow`

Rows are yielded one at a time and nothing but the row (for parquet one small batch) is in memory, so a source of any
length can be read; iterate, never list. Text stays as it is: a placeholder such as `<image>` in it is text.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from data_construction.sources.hub import Place, locate
from data_construction.sources.pictures import Pictures
from data_construction.sources.record import HowRead, Record, Wanted
from data_construction.sources.records import read_records
from data_construction.sources.row import BadRow, SourceRow
from data_construction.sources.values import (
    Names,
    alternatives,
    as_list_or_object,
    as_text,
    content_id,
    first_of,
    matches,
    plain,
)
from safer_steer.errors import UserError
from safer_steer.picture_digest import file_digest

FIELDS = ("id", "source", "image", "question", "answer", "meta")
_HALF_PAIR = re.compile("[\ud800-\udfff]")
Adapt = Callable[[dict[str, Any], Path, str], Iterator[dict[str, Any]]]


@dataclass(frozen=True)
class Source:
    """One data set.

    Attributes:
        name: its name in configs; also the `source` of its seeds, unless a field holds that or it takes any data set.
        what: one line for the listing.
        licence: as its card states it, None when the card states none.
        hub: its id on the Hugging Face hub; None where it is not there.
        splits: split -> globs of record files below the data folder, in order of preference: the first one that
            matches is read. The first split is read when none is asked for.
        any_data_set: whether it reads data sets of any name; their seeds' `source` is then the name in the config.
        other_splits: the same for any other split, whose name stands for "{split}"; empty: there is no other.
        fields: our field -> theirs; alternatives as a tuple; "a.b" reaches into objects; "meta.x" is put into meta.
        folders: folders, in the data folder or in an archive, that picture paths are relative to; "{split}" as above.
        archives: zip or tar files with pictures, relative to the data folder; "{split}" as above.
        columns: further fields that `adapt` reads, beyond those of `fields`.
        adapt: (record, its file, split) -> the seeds in it, as records that `fields` fits; it raises `BadRow`.
    """

    name: str
    what: str
    licence: str | None
    splits: Mapping[str, Sequence[str]]
    fields: Mapping[str, Names]
    hub: str | None = None
    folders: Sequence[str] = ()
    archives: Sequence[str] = ()
    columns: Sequence[str] = ()
    adapt: Adapt | None = None
    other_splits: Sequence[str] = ()
    any_data_set: bool = False

    def read(
        self,
        path: str | Path,
        fields: Mapping[str, str] | None = None,
        split: str | None = None,
        where: Mapping[str, Any] | None = None,
        *,
        pictures: bool = True,
        local_only: bool = False,
        read: list[HowRead] | None = None,
    ) -> Iterator[SourceRow]:
        """Yields the split's seeds in the order of its files, those that cannot be used included.

        Args:
            path: local file or folder, or hub id (see `hub.locate`).
            fields: our field -> theirs, over the source's own map.
            split: one of `splits`; None: the first.
            where: their field -> the value or list of values that a record must have to be a seed.
            pictures: False leaves the pictures out, for counting.
            local_only: never download.
            read: how each file was read is added to this list.

        Raises:
            UserError: no such path, split or field, or no record file of the source below the path.
        """
        names = self._names(fields or {})
        split = self.split(split)
        place = locate(path, self._downloads(split), local_only=local_only)
        files = [place.file] if place.file else self._files(place.root, split)
        if not files:
            globs = ", ".join(self._globs(split))
            raise UserError(f"no {self.name} file below {path}: looked for {globs}; correct sources.*.path")
        wanted = self._wanted(names, where or {}, pictures)
        with closing(self._pictures(place, split)) as finder:
            reading = _Reading(place.root, split, names, where or {}, finder if pictures else None)
            for file in files:
                how = HowRead(file)
                if read is not None:
                    read.append(how)
                for record in read_records(file, wanted, how):
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
        self.split(split)

    def split(self, asked: str | None) -> str:
        """The data set's split that is read when `asked` is.

        Raises:
            UserError: there is no such split.
        """
        if asked is None:
            return next(iter(self.splits))
        if asked not in self.splits and not self.other_splits:
            raise UserError(f"source {self.name} has no split {asked!r}; choose from: {', '.join(self.splits)}")
        return asked

    def _names(self, fields: Mapping[str, str]) -> dict[str, Names]:
        unknown = sorted(name for name in fields if name not in FIELDS and not re.fullmatch(r"meta\.\w+", name))
        if unknown:
            raise UserError(
                f"source {self.name}: fields maps unknown name(s) {', '.join(unknown)}; allowed: "
                f"{', '.join(FIELDS)} and meta.NAME"
            )
        return {"id": "id", "source": (), "image": "image", "answer": (), "meta": ()} | dict(self.fields) | dict(fields)

    def _wanted(self, names: Mapping[str, Names], where: Mapping[str, Any], pictures: bool) -> Wanted:
        """The columns that the field map, `where` and `adapt` look at; one with dots is in the object of that name."""
        dotted = [*where, *self.columns, *(name for theirs in names.values() for name in alternatives(theirs))]
        images = frozenset(alternatives(names["image"]))
        columns = frozenset({*dotted, *(name.partition(".")[0] for name in dotted)})
        return Wanted(columns, frozenset() if pictures else images)

    def _globs(self, split: str) -> list[str]:
        return [glob.replace("{split}", split) for glob in self.splits.get(split, self.other_splits)]

    def _downloads(self, split: str) -> list[str]:
        """What to download, as hub patterns, in which "*" matches "/" too and "**/" wants a folder."""
        beside = [*self.archives, *(f"{folder}/*" for folder in self.folders if folder)]
        globs = self._globs(split)
        top = [glob.removeprefix("**/") for glob in globs if glob.startswith("**/")]
        found = [*globs, *top, *(name.replace("{split}", split) for name in beside)]
        return list(dict.fromkeys([*found, *map(_any_case, [*globs, *top])]))

    def _files(self, root: Path, split: str) -> list[Path]:
        for glob in self._globs(split):
            if files := [file for file in root.glob(_any_case(glob)) if file.is_file()]:
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
                if matches(data, reading.where):
                    yield self._row(data, at, place, file, reading)
        except BadRow as bad:
            yield SourceRow(at, problem=f"{place}: {bad.detail}", reason=bad.reason)
        except Exception as error:  # noqa: BLE001 - fields not of the card's types
            yield SourceRow(at, problem=f"{place}: {type(error).__name__}: {error}", reason="bad record")

    def _row(self, data: dict[str, Any], at: str, place: str, file: Path, reading: "_Reading") -> SourceRow:
        value = {name: first_of(data, theirs) for name, theirs in reading.names.items()}
        key = as_text(value["id"]) or ""
        known = {
            "answer": as_text(value["answer"]),
            "source": as_text(value["source"]) or (None if self.any_data_set else self.name),
            "meta": _meta(value),
        }
        question = (as_text(value["question"]) or "").strip()
        try:
            if not question:
                where = " or ".join(repr(name) for name in alternatives(reading.names["question"]))
                got = f"got {value['question']!r:.80}; the row has: {', '.join(map(str, data))[:200] or 'nothing'}"
                raise BadRow("no question", f"no question in field {where}; {got}")
            if _HALF_PAIR.search(f"{key}{question}{known['answer']}{known['source']}"):
                raise BadRow("bad record", "the text is not Unicode: it holds half of a surrogate pair")
            picture = reading.finder.find(value["image"], file.parent) if reading.finder else None
        except BadRow as bad:
            return SourceRow(key or at, problem=f"{place}: {bad.detail}", reason=bad.reason)
        if not key:
            key = content_id(picture, question, reading.root, reading.digest) if reading.finder else at
        return SourceRow(key, question, picture, **known)


@dataclass(frozen=True)
class _Reading:
    """What all rows of one `read` share."""

    root: Path
    split: str
    names: Mapping[str, Names]
    where: Mapping[str, Any]
    finder: Pictures | None
    digest: Callable[[Path], str | None] = field(  # many questions are asked about one picture
        default_factory=lambda: lru_cache(maxsize=1024)(file_digest)
    )


def _meta(value: Mapping[str, Any]) -> dict[str, Any]:
    whole = as_list_or_object(value["meta"])
    whole = whole if isinstance(whole, dict) else {} if whole is None else {"meta": whole}
    parts = {name[5:]: item for name, item in value.items() if name.startswith("meta.") and item is not None}
    return plain(whole | parts)


def _natural(text: str) -> list[tuple[bool, int, str]]:
    """Sort key under which 9 comes before 10."""
    return [(not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", text)]


def _any_case(glob: str) -> str:
    """The glob with an ending in small letters or capitals."""
    name, dot, ending = glob.rpartition(".")
    return (
        name + dot + "".join(f"[{letter.lower()}{letter.upper()}]" if letter.isalpha() else letter for letter in ending)
    )
