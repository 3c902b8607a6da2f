"""Which rows of a file a run takes: the first so many, a range of places, or those of given ids."""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

from safer_steer.dialogue import Dialogue
from safer_steer.errors import UserError
from safer_steer.row_files import BadRow, first_few, numbered_rows

_RANGE = re.compile(r"(\d+)-(\d+)")


def _checked(value: Any) -> Any:
    ends = [value, value] if type(value) is int else [int(end) for end in _range(value)]
    if not 1 <= ends[0] <= ends[1]:
        raise ValueError("a limit is a number from 1 on, or a range such as 10-20, from 1 and with both ends")
    return value


def _range(value: Any) -> tuple[str, ...]:
    found = _RANGE.fullmatch(value) if isinstance(value, str) else None
    return found.groups() if found else ("0", "0")


# A number of rows, or a range of places as in inspect_ai: "10-20" is the 10th to the 20th.
Limit = Annotated[int | str, BeforeValidator(_checked)]
Id = Annotated[str, BeforeValidator(lambda value: str(value) if type(value) is int else value)]


def places(limit: int | str | None) -> slice:
    """The places, from 0, of the rows that a limit takes; None takes all."""
    if not isinstance(limit, str):
        return slice(0, limit)
    first, last = _range(limit)
    return slice(int(first) - 1, int(last))


def check_choice(limit: int | str | None, ids: Collection[str]) -> None:
    """Checks that rows are chosen in one way.

    Raises:
        ValueError: they are chosen by both.
    """
    if ids and limit is not None:
        raise ValueError("limit and ids both choose rows; give one of them")


def some_bad(bad: Sequence[BadRow]) -> str:
    """How many rows are bad, and why the first few are, to stand in a message."""
    number = f"{len(bad)} bad row{'s' if len(bad) > 1 else ''}"
    return f"; {number}: {'; '.join(first_few([row.detail for row in bad]))}" if bad else ""


def require_ids(ids: Iterable[str], found: Collection[str], key: str, where: str, bad: Sequence[BadRow] = ()) -> None:
    """Checks that every row that was asked for is there, and usable.

    Raises:
        UserError: some are not.
    """
    if unknown := [name for name in ids if name not in found]:
        raise UserError(f"{key}: no row {', '.join(map(repr, unknown))} in {where}{some_bad(bad)}; correct the ids")


def chosen_dialogues(
    path: Path,
    limit: int | str | None,
    ids: Collection[str],
    bad: list[BadRow],
    problem: Callable[[Dialogue], tuple[str, str] | None],
) -> Iterator[Dialogue]:
    """The dialogues of a user's file that a run takes, in file order; only usable rows have a place.

    Args:
        path: the file.
        limit: see `places`.
        ids: of the rows to take; empty: all.
        bad: rows that cannot be used are added, up to the last one that is taken; with `ids` those of these ids.
        problem: why a dialogue cannot be used, reason and detail.
    """
    wanted, place = places(limit), 0
    for number, row in numbered_rows(path, Dialogue):
        if wanted.stop is not None and place >= wanted.stop:
            return
        if isinstance(row, Dialogue) and (found := problem(row)):
            row = BadRow.at(path, number, found[0], f"dialogue {row.id} {found[1]}", row.id)
        if isinstance(row, BadRow):
            if not ids or row.own_id in ids:
                bad.append(row)
        else:
            if place >= wanted.start and (not ids or row.id in ids):
                yield row
            place += 1
