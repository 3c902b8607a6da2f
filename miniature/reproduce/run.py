"""The paper in miniature: runs the steps that are not done, then judges the claims and writes the page.

Input: `configs/reproduce/*.yaml`. Output below `--root`: `seed_N/` (a run folder a seed, with `logs/` and `stages/`),
`claims.json`, `miniature.md`, `images/`.
    python -m miniature.reproduce.run [--sweep | --fairer] [--seeds N] [--only CELL,...] [--jobs 2] [--dry-run]
"""

if __name__ == "__main__":  # before the imports below, which take seconds
    from safer_steer import interrupts

    interrupts.watch()

import argparse
import asyncio
import dataclasses
import shlex
import sys
import tempfile
from pathlib import Path

from miniature.reproduce.cells import CELLS, choose, extra_cells, steps
from miniature.reproduce.page import say_results, write_results
from miniature.reproduce.runner import Report, Runner
from miniature.reproduce.settings import Extras, Settings
from miniature.reproduce.steps import Step
from safer_steer.cli import exit_code
from safer_steer.config import load_config

CONFIGS = Path("configs/reproduce")
SEEDS = 3
EXTRAS = {  # cells besides the paper's, each configs/reproduce/NAME.yaml
    "sweep": "instead of the cells: variants of GRPO on seed 0",
    "fairer": "instead of the cells: fairer tests of what the parts of GRPO contribute",
}


def main(argv: list[str] | None = None) -> int:
    """The command line: 0 when everything is done, 1 when a step failed, 2 after an error a user can fix, 130 after
    an interrupt.
    """
    arguments = _parse(argv)
    return exit_code(lambda: _run(arguments))


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    extras = parser.add_mutually_exclusive_group()
    for name, text in EXTRAS.items():
        extras.add_argument(f"--{name}", dest="extras", action="store_const", const=name, help=text)
    parser.add_argument("--seeds", type=int, help=f"how many seeds, from 0 (default: {SEEDS}; --sweep: 1)")
    parser.add_argument("--only", help=f"cells to make, of {', '.join(CELLS)}; or of those of --sweep or --fairer")
    parser.add_argument("--root", type=Path, default=Path("outputs/reproduce"), help="(default: outputs/reproduce)")
    parser.add_argument("--jobs", type=int, default=2, help="steps at once (default: 2), about 6.5 GB each")
    parser.add_argument("--config", default=CONFIGS / "miniature.yaml", help="sizes (default: %(default)s)")
    parser.add_argument("--write-docs", action="store_true", help="also write docs/miniature.md and its pictures")
    parser.add_argument(
        "--dry-run", action="store_true", help="print all commands, check the configs of the first seed"
    )
    arguments = parser.parse_args(argv)
    if (arguments.seeds is not None and arguments.seeds < 1) or arguments.jobs < 1:
        parser.error("--seeds and --jobs must be at least 1")
    return arguments


def _run(arguments: argparse.Namespace) -> int:
    known, count = CELLS, SEEDS
    if arguments.extras:
        extras = load_config(Extras, CONFIGS / f"{arguments.extras}.yaml")
        known, count = extra_cells(extras), extras.number_of_seeds
    cells, seeds = choose(known, arguments.only), range(arguments.seeds or count)
    planned = steps(load_config(Settings, arguments.config), arguments.root, seeds, cells)
    if arguments.dry_run:
        return dry_run(planned, arguments.jobs)
    report = asyncio.run(Runner(planned, arguments.jobs, _say).run())
    if report.interrupted:
        return 130
    say_results(arguments.root, *write_results(arguments.root, arguments.write_docs))
    return _verdict(report, {step.name: step for step in planned})


def dry_run(planned: list[Step], jobs: int) -> int:
    """Prints every command, then runs each stage's own --dry-run for the first seed, which checks its config."""
    for step in planned:
        print(f"{step.name}{' (finished)' if step.done() else ''}: {shlex.join(step.command)}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        first = [step for step in planned if step.folder in (planned[0].folder, planned[1].folder)]  # Base, first seed
        checks = [
            dataclasses.replace(
                step, command=(*step.command, "--dry-run"), folder=Path(folder), needs=(), records=(), files=()
            )
            for step in first
        ]
        report = asyncio.run(Runner(checks, jobs, lambda text: print(text) if "FAILED" in text else None, True).run())
    said = f"{len(planned)} steps; configs of {len(report.now)} of {len(checks)} are sound"
    print(f"{said}; problems: {', '.join(report.failed) or 'none'}{'; interrupted' if report.interrupted else ''}")
    return 130 if report.interrupted else 2 if report.failed else 0


def _verdict(report: Report, planned: dict[str, Step]) -> int:
    for name, problem in report.failed.items():
        print(f"error: step {name} failed: {problem}; its log: {planned[name].log}", file=sys.stderr)
    if report.blocked:
        print(f"error: not started, for a step before failed: {', '.join(report.blocked)}", file=sys.stderr)
    return 0 if report.ok else 1


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
