"""Seed sources: what there is, and what is in one of them.

    python -m data_construction.sources
    python -m data_construction.sources check NAME path=PATH [key=value ...]

Keys: `data_split=SPLIT`, `limit=ROWS`, `pictures=optional`, `fields.OURS=THEIRS` and `where.THEIRS=VALUE`, as in a
config's sources.

PATH is a file, a folder, or a hub id such as ORG/NAME or ORG/NAME@REVISION, which is downloaded. `check` decodes every
picture and prints counts, rejects by reason, picture sizes and three samples; it ends with 2 when no row can be used.
"""

if __name__ == "__main__":  # before the imports below, which take seconds
    from safer_steer import interrupts

    interrupts.watch()

import argparse
import sys
from collections.abc import Iterator
from typing import Any

from omegaconf import OmegaConf

from data_construction.sources import SOURCES, Source, SourceRow
from data_construction.sources.check import check_rows, report
from data_construction.sources.record import HowRead
from safer_steer.cli import exit_code
from safer_steer.errors import UserError
from safer_steer.progress import ProgressBar

KEYS = ("path", "data_split", "limit", "pictures", "fields", "where")


def main(argv: list[str] | None = None) -> int:
    """Lists the sources, or checks one."""
    parser = argparse.ArgumentParser(
        prog="python -m data_construction.sources",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", nargs="?", choices=["list", "check"], default="list")
    parser.add_argument("arguments", nargs="*", metavar="NAME key=value")
    options = parser.parse_args(argv)

    def run() -> None:
        if options.command == "check":
            check(options.arguments)
        else:
            print("\n\n".join(_described(name, source) for name, source in SOURCES.items() if name == source.name))

    return exit_code(run)


def check(arguments: list[str]) -> None:
    """Reads one source in full and prints what is in it.

    Raises:
        UserError: a wrong argument, or nothing that can be used.
    """
    name, values = _parsed(arguments)
    read: list[HowRead] = []
    arguments = (values["path"], values.get("fields"), values.get("data_split"), values.get("where"))
    rows = SOURCES[name].read(*arguments, read=read)
    with ProgressBar(f"check {name}", values.get("limit")) as bar:
        found = check_rows(_counted(rows, bar), values.get("limit"), values.get("pictures", "required"))
    for line in [*read, *report(found)]:
        print(line)


def _counted(rows: Iterator[SourceRow], bar: ProgressBar) -> Iterator[SourceRow]:
    for row in rows:
        yield row
        bar.advance()


def _parsed(arguments: list[str]) -> tuple[str, dict[str, Any]]:
    names = [item for item in arguments if "=" not in item]
    if len(names) != 1 or names[0] not in SOURCES:
        raise UserError(f"check wants one source, got {' '.join(names) or 'none'}; choose from: {', '.join(SOURCES)}")
    values = OmegaConf.to_container(OmegaConf.from_dotlist([item for item in arguments if "=" in item]))
    if unknown := sorted(set(values) - set(KEYS)):
        raise UserError(f"unknown key(s) {', '.join(unknown)}; allowed: {', '.join(KEYS)}")
    if not values.get("path"):
        raise UserError(f"check {names[0]} wants path=PATH, a file, a folder or a hub id")
    limit = values.get("limit")
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise UserError(f"limit is a number of rows from 1 on; got {limit!r}")
    if values.get("pictures", "required") not in ("required", "optional"):
        raise UserError(f"pictures is required or optional; got {values['pictures']!r}")
    return names[0], values


def _described(name: str, source: Source) -> str:
    theirs = {ours: names if isinstance(names, str) else " or ".join(names) for ours, names in source.fields.items()}
    lines = [
        f"{name}: {source.what}",
        f"    licence: {source.licence or ('its own' if source.any_data_set else 'not stated')}",
        f"    hub: {source.hub or ('any data set' if source.any_data_set else 'not there')}",
        f"    splits: {', '.join(source.splits)}{' or any name in the paths' if source.other_splits else ''}",
        f"    fields: {', '.join(f'{ours} <- {name}' for ours, name in theirs.items())}",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
