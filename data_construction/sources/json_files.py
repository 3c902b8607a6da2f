"""JSON files -> records: one row per line (JSONL), or one document.

A document is a list of objects, an object of objects (whose names become the field `key`), one object alone, or a
wrapper, an object that holds the list under one of the names in `json_members.WRAPPERS`. Which it is, is read off the
file, so that a misnamed one is read too. NaN and Infinity are numbers; a name twice in one object rejects the row.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_construction.sources.json_members import Members
from data_construction.sources.record import HowRead, Record, Wanted
from data_construction.sources.text_files import bad_bytes, open_text
from safer_steer.row_files import named_once

LONGEST_LINE = 16 * 1024 * 1024  # characters looked at to tell a document from lines


def json_records(path: Path, how: HowRead, wanted: Wanted) -> Iterator[Record]:
    """The rows of a JSON or JSONL file."""
    lines = _is_lines(path, how)
    how.format = "JSONL" if lines else "JSON"
    with open_text(path, how, newline="") as file:  # JSON has no carriage return inside a string
        if not lines:
            yield from _document(Members(file), how, wanted)
            return
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield _parsed(f"line {number}", line, how)


def _is_lines(path: Path, how: HowRead) -> bool:
    with open_text(path, how, newline="") as file:
        first = next((line for line in iter(lambda: file.readline(LONGEST_LINE), "") if line.strip()), "").strip()
        second = next((line for line in iter(lambda: file.readline(256), "") if line.strip()), "").strip()
    if path.suffix.lower() != ".json":
        return first not in ("{", "[") and (not first.startswith("[") or _loads(first)[1] == "")
    if not first.startswith("{") or not second:
        return False
    return (second.startswith("{") and not first.endswith(("[", "{", ",", ":"))) or _loads(first)[1] == ""


def _document(members: Members, how: HowRead, wanted: Wanted) -> Iterator[Record]:
    number, held = 0, dict[str, Any]()  # held: what may be the fields of one object alone
    for number, member in enumerate(members, start=1):
        where = f"item {number - len(held)}"
        if member.problem:
            yield Record(where, {}, f"not JSON: {member.problem}")
        elif not member.in_object:
            yield _parsed(where, member.text, how)
        else:
            record = _parsed(where, f"{{{member.text}}}", how)
            if record.problem:
                yield record
                continue
            ((name, value),) = record.data.items()
            if isinstance(value, dict) and not held and name not in (wanted.names or ()):
                yield Record(where, {"key": name} | value)
            elif name in held:
                yield Record(where, {}, f"{name!r} stands twice in one object")
            else:
                held[name] = value
    if held and not members.wrapper:
        yield Record(f"item {number - len(held) + 1}", held)


def _parsed(where: str, text: str, how: HowRead) -> Record:
    if problem := bad_bytes(text, how.encoding):
        return Record(where, {}, f"not JSON in {problem}")
    data, problem = _loads(text)
    if problem:
        return Record(where, {}, f"not JSON: {problem}")
    if not isinstance(data, dict):
        return Record(where, {}, f"is a JSON {type(data).__name__}, not an object")
    return Record(where, data)


def _loads(text: str) -> tuple[Any, str]:
    """The value of a JSON text, or what is wrong with it."""
    try:
        return json.loads(text, object_pairs_hook=named_once), ""
    except (ValueError, RecursionError) as error:  # also for numbers of more digits than Python converts
        return None, str(error)
