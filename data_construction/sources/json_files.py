"""JSON files -> records: one row per line (JSONL), or documents, mostly one.

A document is a list of objects, an object of objects (whose names become the field `key`), one object alone, or a
wrapper, an object that holds the list under one of the names in `json_members.WRAPPERS`. Which it is, is read off the
file, so that a misnamed one is read too. NaN and Infinity are numbers; a name twice in one object rejects the row.
"""

import json
from collections.abc import Iterator
from itertools import chain, count
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
                text = line.removeprefix("\ufeff")  # files that were put one after the other have it in the middle
                yield Record(f"line {number}", *_parsed(text, how))


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
    number = count(1)

    def record(data: dict[str, Any], problem: str) -> Record:
        return Record(f"item {next(number)}", {} if problem else data, problem)

    held, broken = dict[str, Any](), ""  # what may be the fields of one object alone, and what is wrong with one
    for member in chain(members, [Member("", ends=True)]):
        if member.ends:
            if broken or (held and not members.wrapper):
                yield record(held, broken)
            held, broken = {}, ""
            continue
        data, problem = {}, member.problem and f"not JSON: {member.problem}"
        if not problem:
            data, problem = _parsed(f"{{{member.text}}}" if member.in_object else member.text, how)
        name, value = next(iter(data.items()), ("", None))
        if not member.in_object:
            yield record(data, problem)
        elif problem and not held:  # of a field, or of a row by the name of it
            if broken:
                yield record({}, broken)
            broken = problem
        elif problem or name in held:
            broken = broken or problem or f"{name!r} stands twice in one object"
        elif isinstance(value, dict) and not held and name not in (wanted.names or ()):
            if broken:
                yield record({}, broken)
            broken = ""
            yield record({"key": name} | value, "")
        else:
            held[name] = value


def _parsed(text: str, how: HowRead) -> tuple[dict[str, Any], str]:
    """The object of a JSON text, or what is wrong with it."""
    if problem := bad_bytes(text, how.encoding):
        return {}, f"not JSON in {problem}"
    data, problem = _loads(text)
    if problem:
        return {}, f"not JSON: {problem}"
    return (data, "") if isinstance(data, dict) else ({}, f"is a JSON {type(data).__name__}, not an object")


def _loads(text: str) -> tuple[Any, str]:
    """The value of a JSON text, or what is wrong with it."""
    try:
        return json.loads(text, object_pairs_hook=named_once), ""
    except (ValueError, RecursionError) as error:  # also for numbers of more digits than Python converts
        return None, str(error)
