"""JSON files -> records: one row per line (JSONL), or documents, mostly one.

A document is a list of objects, an object of objects (whose names become the field `key`), one object alone, or a
wrapper, an object that holds the list under one of the names in `json_members.WRAPPERS`. Which it is, is read off the
file, so that a misnamed one is read too. NaN and Infinity are numbers; a name twice in one object rejects the row.
"""

import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from data_construction.sources.json_members import Member, Members
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
            yield from _documents(Members(file), how, wanted)
            return
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield _parsed(f"line {number}", line.removeprefix("\ufeff"), how)  # of files put one after the other


def _is_lines(path: Path, how: HowRead) -> bool:
    with open_text(path, how, newline="") as file:
        first = next((line for line in iter(lambda: file.readline(LONGEST_LINE), "") if line.strip()), "").strip()
        second = next((line for line in iter(lambda: file.readline(256), "") if line.strip()), "").strip()
    if path.suffix.lower() != ".json":
        return first not in ("{", "[") and (not first.startswith("[") or (second != "" and _loads(first)[1] == ""))
    if not first.startswith("{") or not second:
        return False
    return (second.startswith("{") and not first.endswith(("[", "{", ",", ":"))) or _loads(first)[1] == ""


def _documents(members: Members, how: HowRead, wanted: Wanted) -> Iterator[Record]:
    done, held = 0, dict[str, Any]()  # held: what may be the fields of one object alone
    for member in chain(members, [Member("", ends=True)]):
        where = f"item {done + 1}"
        if member.ends:
            found = Record(where, held) if held and not members.wrapper else None
            held = {}
        elif member.problem:
            found = Record(where, {}, f"not JSON: {member.problem}")
        elif member.in_object:
            found = _field(where, member.text, how, wanted, held)
        else:
            found = _parsed(where, member.text, how)
        if found:
            done += 1
            yield found


def _field(where: str, text: str, how: HowRead, wanted: Wanted, held: dict[str, Any]) -> Record | None:
    """The record that a field of an object is; None where it is put with the fields that are held."""
    record = _parsed(where, f"{{{text}}}", how)
    if record.problem:
        return record
    ((name, value),) = record.data.items()
    if isinstance(value, dict) and not held and name not in (wanted.names or ()):
        return Record(where, {"key": name} | value)
    if name in held:
        return Record(where, {}, f"{name!r} stands twice in one object")
    held[name] = value
    return None


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
