"""Geometry3K in the layout of lupantech/InterGPS: `[split/]<id>/data.json` beside `img_diagram.png` -> `SourceRow`.

Fields read, as in that repository: `compact_text` (else `problem_text`), `compact_choices` (else `choices`), `answer`
(a letter), `problem_type_graph`, `problem_type_goal`, `data_type`. The folder's name is the id.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from data_construction.sources.row import SourceRow
from safer_steer.errors import UserError

LETTERS = "ABCDEFGH"
PICTURE = "img_diagram.png"


def read(path: Path, fields: Mapping[str, str]) -> Iterator[SourceRow]:
    """Yields the problems below `path`, by folder name, numbers in order.

    Raises:
        UserError: no problem folder is there, or a field map was given, which this reader does not take.
    """
    if fields:
        raise UserError(f"{path}: the geometry3k reader takes no field map; remove sources.*.fields")
    folders = [file.parent for file in path.rglob("data.json")] if path.is_dir() else []
    if not folders:
        raise UserError(f"no Geometry3K problem (ID/data.json) below {path}; correct sources.*.path")
    for folder in sorted(folders, key=lambda item: (item.parent, not item.name.isdigit(), item.name.zfill(8))):
        yield _row(folder, "/".join(folder.relative_to(path).parts))


def _row(folder: Path, key: str) -> SourceRow:
    try:
        data = json.loads((folder / "data.json").read_text(encoding="utf-8"))
        text = str(data.get("compact_text") or data["problem_text"]).strip()
        choices = [str(choice) for choice in data.get("compact_choices") or data["choices"]]
        letter = str(data["answer"]).strip().upper()
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
        return SourceRow(key, problem=f"data.json cannot be used: {type(error).__name__}: {error}")
    if not text:
        return SourceRow(key, problem="the problem has no text")
    allowed = LETTERS[: len(choices)]
    if len(letter) != 1 or letter not in allowed:
        return SourceRow(key, problem=f"answer {letter!r} is none of the choices {', '.join(allowed)}")
    options = " ".join(f"({name}) {choice}" for name, choice in zip(allowed, choices, strict=True))
    names = ("problem_type_graph", "problem_type_goal", "data_type")
    return SourceRow(
        id=key,
        question=f"{text}\nChoices: {options}",
        picture=PICTURE,
        answer=choices[allowed.index(letter)],
        source="geometry3k",
        root=folder,
        meta={name: data[name] for name in names if name in data} | {"answer_letter": letter},
    )
