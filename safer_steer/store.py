r"""JSONL files: UTF-8, rows split on "\n" only, whole lines appended, a torn tail repaired, resume by id."""

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from operator import itemgetter
from pathlib import Path
from typing import IO, Any, Self

from pydantic import BaseModel, ValidationError

from safer_steer.errors import UserError


def dump_row(row: BaseModel | dict) -> str:
    """One row as one line of JSON; lone surrogates are escaped so that the line is always valid UTF-8."""
    data = row.model_dump(mode="json") if isinstance(row, BaseModel) else row
    text = json.dumps(data, ensure_ascii=False, allow_nan=False)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        text = json.dumps(data, allow_nan=False)
    return text


def read_jsonl(path: str | Path, model: type[BaseModel] | None = None) -> Iterator[Any]:
    r"""Yields the rows of a JSONL file, as dicts or as `model`.

    A last line without "\n" is the torn tail of an interrupted write: it is left out.

    Raises:
        UserError: the file is missing, or a whole line is not valid (the message names file:line).
    """
    return (row for _, row in read_with_offsets(path, model))


def read_with_offsets(path: str | Path, model: type[BaseModel] | None = None) -> Iterator[tuple[int, Any]]:
    """As `read_jsonl`, each row with the place of its line in the file, in bytes."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"file not found: {path}; check the path, or run the stage that writes it")
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.endswith(b"\n") and line.strip():
                try:
                    data = json.loads(line.decode("utf-8"))
                    yield offset, model.model_validate(data) if model else data
                except (UnicodeDecodeError, json.JSONDecodeError, ValidationError) as error:
                    raise UserError(f"{path}:{number}: not a valid row: {error}; fix or remove this line") from error
            offset += len(line)


class JsonlStore:
    """An append-only JSONL file with unique keys.

    Opening repairs a torn tail (an interrupted last line is cut off) and reads the keys already there; `append` writes
    one whole line and flushes it, so a killed process loses at most the row it was writing.
    """

    def __init__(self, path: str | Path, key: str = "id"):
        self.path, self.key = Path(path), key
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._repair_tail()
        self._open()

    def _open(self) -> None:
        self._file = self.path.open("ab")
        self._keys = {row[self.key] for row in read_jsonl(self.path)}

    def _repair_tail(self) -> None:
        if not self.path.exists():
            return
        with self.path.open("rb+") as file:
            end = file.seek(0, os.SEEK_END)
            position = end
            while position > 0:
                start = max(0, position - 65536)
                file.seek(start)
                newline = file.read(position - start).rfind(b"\n")
                if newline >= 0:
                    position = start + newline + 1
                    break
                position = start
            if position != end:
                file.truncate(position)

    def append(self, row: BaseModel | dict) -> bool:
        """Appends one row; returns False, and writes nothing, when its key is already there."""
        value = getattr(row, self.key) if isinstance(row, BaseModel) else row[self.key]
        if value in self._keys:
            return False
        line = dump_row(row).encode("utf-8") + b"\n"
        with _naming(self.path):
            self._file.write(line)
            self._file.flush()
        self._keys.add(value)
        return True

    def rows(self, model: type[BaseModel] | None = None) -> Iterator[Any]:
        """The rows written so far."""
        return read_jsonl(self.path, model)

    def drop(self, unwanted: Callable[[dict], bool]) -> int:
        """Takes rows out of the file, in one atomic rewrite; returns how many."""
        number = sum(map(unwanted, self.rows()))
        if number:
            self.close()
            write_jsonl(self.path, (row for row in read_jsonl(self.path) if not unwanted(row)))
            self._open()
        return number

    def close(self) -> None:
        """Writes everything to disk and closes the file."""
        if self._file.closed:
            return
        try:
            with _naming(self.path):
                self._file.flush()
                os.fsync(self._file.fileno())
        finally:
            with suppress(OSError):  # on a full disk: the last row stays torn, and is cut off when it is opened again
                self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def write_atomic(path: str | Path, text: str) -> None:
    """Writes a whole file or nothing: a temporary file in the same folder, then a rename."""
    with replacing(Path(path)) as file:
        file.write(text)


def write_jsonl(path: str | Path, rows: Iterable[BaseModel | dict]) -> int:
    """Writes a whole JSONL file atomically, a row at a time; returns the number of rows."""
    number = 0
    with replacing(Path(path)) as file:
        for row in rows:
            file.write(dump_row(row) + "\n")
            number += 1
    return number


@contextmanager
def replacing(path: Path) -> Iterator[IO[str]]:
    """A text file that takes the place of `path` when it is complete; nothing changes if the block raises."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with _naming(path), os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Puts the file's name into errors of writing, which come without one."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def rows_if_there(path: Path, model: Any = None) -> Iterator[Any]:
    """As `read_jsonl`; nothing where there is no such file."""
    return read_jsonl(path, model) if path.is_file() else iter(())


def put_in_order(path: Path, ids: Sequence[str], key: Callable[[dict], str] = itemgetter("id")) -> None:
    """Rewrites a finished JSONL file with its rows sorted by the place of their key in `ids`; other rows come last.

    So a run that was killed and resumed ends with the same bytes as one that was not. Lines are moved as they are, and
    nothing is written when they are in order already.
    """
    places = {name: number for number, name in enumerate(ids)}
    rows = read_jsonl(path)
    with path.open("rb") as file:
        lines = [line for line in file if line.endswith(b"\n")]
    found = [places.get(key(row), len(places)) for row in rows]
    order = sorted(range(len(lines)), key=found.__getitem__)
    if order != list(range(len(lines))):
        with replacing(path) as target:
            for number in order:
                target.write(lines[number].decode("utf-8"))
