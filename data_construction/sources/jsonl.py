"""Generic JSONL seeds: one object a line -> `SourceRow`.

Fields by default those of `safer_steer.dialogue.Seed` (id, source, image, question, answer, meta); `fields` maps our
name to theirs, "a.b" reaching into objects. `image` is a path relative to the file, a `{"bytes", "path"}` struct, a
data URL, or a list with one of these. A row without an id is named by its content.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data_construction.sources.row import SourceRow
from safer_steer.dialogue import stable_hash
from safer_steer.errors import UserError

FIELDS = ("id", "source", "image", "question", "answer", "meta")


def read(path: Path, fields: Mapping[str, str]) -> Iterator[SourceRow]:
    """Yields the file's seeds in order.

    Raises:
        UserError: the file is missing or the field map names a field we do not have.
    """
    if not path.is_file():
        raise UserError(f"seeds not found: {path}; correct sources.*.path, or make the file first")
    if unknown := sorted(set(fields) - set(FIELDS)):
        raise UserError(f"{path}: fields maps unknown name(s) {', '.join(unknown)}; allowed: {', '.join(FIELDS)}")
    names = {name: fields.get(name, name) for name in FIELDS}
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield _row(line, number, names, path.parent)


def _row(line: bytes, number: int, names: dict[str, str], root: Path) -> SourceRow:
    try:
        data = json.loads(line.decode("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        return SourceRow(f"line-{number}", problem=f"line {number} is not JSON: {error}")
    if not isinstance(data, dict):
        return SourceRow(f"line-{number}", problem=f"line {number} is {type(data).__name__}, not an object")
    value = {name: _dig(data, theirs) for name, theirs in names.items()}
    key = str(value["id"]) if value["id"] not in (None, "") else stable_hash(value["image"], value["question"])
    question, answer, picture = value["question"], value["answer"], value["image"]
    if not isinstance(question, str) or not question.strip():
        return SourceRow(key, problem=f"no question in field {names['question']!r}; got {question!r:.80}")
    if isinstance(picture, list):
        if len(picture) > 1:
            return SourceRow(key, problem=f"{len(picture)} pictures; a seed has one")
        picture = picture[0] if picture else None
    return SourceRow(
        id=key,
        question=question.strip(),
        picture=picture,
        answer=None if answer in (None, "") else str(answer),
        source=value["source"] if isinstance(value["source"], str) else None,
        root=root,
        meta=value["meta"] if isinstance(value["meta"], dict) else {},
    )


def _dig(data: Any, dotted: str) -> Any:
    for part in dotted.split("."):
        data = data.get(part) if isinstance(data, dict) else None
    return data
