"""The command line every stage shares: `python -m package.entry [CONFIG] [key=value ...] [--dry-run] [--help]`."""

import argparse
import io
import sys
from collections.abc import Callable
from typing import NoReturn

from safer_steer import interrupts
from safer_steer.config import Config, help_text, load_config, resolved_yaml
from safer_steer.errors import UserError
from safer_steer.failures import explain
from safer_steer.plan import Plan


def run_cli(
    doc: str,
    config_class: type[Config],
    plan: Callable[[Config], Plan],
    main: Callable[[Config], int | None],
    default_config: str,
    argv: list[str] | None = None,
    expand: Callable[[list[str]], list[str]] = lambda overrides: overrides,
) -> NoReturn:
    """Parses the command line, loads the config and runs `main`, or prints the plan with --dry-run, which touches
    nothing. `expand` puts words that stand for several overrides into these.

    Exits with 0, with `main`'s own code, with 2 after a one-line error a user can fix, or with 130 after Ctrl-C.
    """

    def act(path: str, overrides: list[str], dry_run: bool) -> int | None:
        words = expand(overrides)
        config = load_config(config_class, path, words)
        if not dry_run:
            return main(config)
        print(f"# {' '.join([path, *words])}\n{resolved_yaml(config)}# plan\n{plan(config)}")
        return 0

    keys = ["keys of the config, with their defaults:", *help_text(config_class)]
    raise SystemExit(command(doc, keys, default_config, act, argv))


def command(
    doc: str,
    keys: list[str],
    default_config: str,
    act: Callable[[str, list[str], bool], int | None],
    argv: list[str] | None = None,
) -> int:
    """Parses the command line and calls `act` with the config's path, the overrides and whether it is a dry run;
    returns the exit code, see `exit_code`. `keys`, a heading and a line for each, are what --help says of the config.
    """
    parser = config_parser(doc, keys, default_config)
    parser.add_argument("--dry-run", action="store_true", help="print the resolved config and the plan; touch nothing")
    given = parse(parser, argv)
    return exit_code(lambda: act(given.config, given.overrides, given.dry_run))


def config_parser(doc: str, keys: list[str], default_config: str) -> argparse.ArgumentParser:
    """A parser of `[CONFIG] [key=value ...]`, to which a command adds its own options."""
    epilog = "\n  ".join(keys)
    parser = argparse.ArgumentParser(
        description=doc, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", nargs="?", default=default_config, help=f"YAML file (default: {default_config})")
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
