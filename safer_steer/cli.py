"""The command line every stage shares: `python -m package.entry [CONFIG] [key=value ...] [--dry-run] [--help]`."""

import argparse
import io
import json
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from typing import Any, NoReturn

from pydantic import BaseModel

from safer_steer import interrupts
from safer_steer.config import Config, help_text, load_config, resolved_yaml
from safer_steer.errors import UserError
from safer_steer.failures import explain
from safer_steer.plan import Plan

DRY_RUN = "print the resolved config and the plan; touch nothing"
JSON = "print the result as one JSON object, and everything else on stderr"


def run_cli(
    doc: str,
    config_class: type[Config],
    plan: Callable[[Config], Plan],
    main: Callable[[Config], int | None],
    default_config: str,
    argv: list[str] | None = None,
    expand: Callable[[list[str]], list[str]] = lambda overrides: overrides,
    closing: Callable[[Config], Mapping[str, Any]] | None = None,
) -> NoReturn:
    """Parses the command line, loads the config and runs `main`, or prints the plan with --dry-run, which touches
    nothing. `expand` puts words that stand for several overrides into these; `closing` gives what a finished run has to
    say, for --json.

    Exits with 0, with `main`'s own code, with 2 after a one-line error a user can fix, or with 130 after Ctrl-C.
    """

    def act(given: argparse.Namespace) -> int | None:
        words = expand(given.overrides)
        config = load_config(config_class, given.config, words)
        if closing and given.json:
            return in_json(lambda: (main(config), closing(config)))
        if not given.dry_run:
            return main(config)
        print_dry_run([given.config, *words], config, plan(config))
        return 0

    keys = ["keys of the config, with their defaults:", *help_text(config_class)]
    raise SystemExit(command(doc, keys, default_config, act, argv, json_too=closing is not None))


def command(
    doc: str,
    keys: list[str],
    default_config: str,
    act: Callable[[argparse.Namespace], int | None],
    argv: list[str] | None = None,
    *,
    json_too: bool = False,
) -> int:
    """Parses the command line and calls `act` with it: `config`, `overrides`, `dry_run` and, with `json_too`, `json`;
    returns the exit code, see `exit_code`. `keys`, a heading and a line for each, are what --help says of the config.
    """
    parser = config_parser(doc, keys, default_config)
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument("--dry-run", action="store_true", help=DRY_RUN)
    if json_too:
        ways.add_argument("--json", action="store_true", help=JSON)
    given = parse(parser, argv)
    return exit_code(lambda: act(given))


def in_json(run: Callable[[], tuple[int | None, Mapping[str, Any]]]) -> int | None:
    """Runs with all that it prints on stderr, prints what it has to say as one JSON object, returns its exit code."""
    out = sys.stdout
    with redirect_stdout(sys.stderr):
        code, said = run()
    print(json.dumps(said, allow_nan=False), file=out, flush=True)
    return code


def print_dry_run(words: list[str], config: BaseModel, plan: Plan) -> None:
    """What --dry-run says: the command's words, the resolved config, the plan."""
    print(f"# {' '.join(words)}\n{resolved_yaml(config)}# plan\n{plan}")


def config_parser(doc: str, keys: list[str], default_config: str) -> argparse.ArgumentParser:
    """A parser of `[CONFIG] [key=value ...]`, to which a command adds its own options."""
    epilog = "\n  ".join(keys)
    parser = argparse.ArgumentParser(
        description=doc, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    said = f"YAML file (default: {default_config}); scripts/*.sh take every relative path as below the repository"
    parser.add_argument("config", nargs="?", default=default_config, help=said)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="values that replace those of the file")
    return parser


def parse(parser: argparse.ArgumentParser, argv: list[str] | None) -> argparse.Namespace:
    """What the command line gives: `config` is a path also where only overrides were given."""
    given = parser.parse_intermixed_args(argv)
    if "=" in given.config:
        given.config, given.overrides = parser.get_default("config"), [given.config, *given.overrides]
    return given


def exit_code(run: Callable[[], int | None]) -> int:
    """Calls `run` as every command is called; returns the exit code.

    What a user can correct ends in one line with code 2: the code's own errors and failures of the machine
    (`failures.explain`). INT and TERM end it in one line with 130, after everything that was started has been stopped
    (`interrupts`).
    """
    for stream in (sys.stdout, sys.stderr):  # a terminal or log of ASCII shows a name as \xe9 and ends no run
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    return interrupts.run(lambda: _code_of(run))


def _code_of(run: Callable[[], int | None]) -> int:
    try:
        return run() or 0
    except UserError as error:
        said: str | None = str(error)
    except Exception as error:
        if (said := explain(error)) is None:
            raise
    print(f"error: {said}", file=sys.stderr)
    return 2
