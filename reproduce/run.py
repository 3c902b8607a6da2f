"""All cells of the paper's tables, in the miniature or at the paper's size: runs what is not done, then reports.

    python -m reproduce.run miniature [--phase] [--seeds N] [--only CELL,...] [--jobs 2] [--dry-run]
    python -m reproduce.run paper [--only SIZE/CELL,...] [--jobs 1] [--dry-run]

Input: `configs/reproduce/*.yaml`. Output below `--root`: run folders with `logs/` and `stages/`; of the miniature
`claims.json`, `miniature.md` and `images/`, of the paper `report/` with our numbers under the printed ones.
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

from reproduce import miniature, paper
from reproduce.cells import CELLS, choose
from reproduce.forecast import forecast, total
from reproduce.page import say_results, write_results
from reproduce.paper_report import write_report
from reproduce.runner import Report, Runner
from reproduce.settings import PaperSettings, Settings
from reproduce.step import Step
from safer_steer.cli import exit_code
from safer_steer.config import load_config

CONFIGS = Path("configs/reproduce")


def main(argv: list[str] | None = None) -> int:
    """The command line: 0 when everything is done, 1 when a step failed, 2 after an error a user can fix, 130 after
    an interrupt.
    """
    arguments = _parse(argv)
    return exit_code(lambda: _run(arguments))


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("world", choices=["miniature", "paper"])
    parser.add_argument(
        "--phase", action="store_true", help="miniature, instead of the cells: real runs for the phase diagram"
    )
    parser.add_argument("--seeds", type=int, help="miniature: how many, from 0 (default: as the config says)")
    parser.add_argument("--only", help=f"cells to make: {', '.join(CELLS)}, of the paper as SIZE/CELL")
    parser.add_argument("--root", type=Path, help="(default: outputs/reproduce, of the paper outputs/paper)")
    parser.add_argument("--jobs", type=int, help="steps at once (default: 2, about 6.5 GB each; of the paper 1)")
    parser.add_argument("--config", help="sizes (default: configs/reproduce/WORLD.yaml)")
    parser.add_argument("--write-docs", action="store_true", help="miniature: also write docs/miniature.md")
    parser.add_argument(
        "--dry-run", action="store_true", help="print all commands and what they will take; check configs"
    )
    arguments = parser.parse_args(argv)
    arguments.config = arguments.config or CONFIGS / f"{arguments.world}.yaml"
    arguments.root = arguments.root or Path("outputs", "reproduce" if arguments.world == "miniature" else "paper")
    if arguments.jobs is None:
        arguments.jobs = 2 if arguments.world == "miniature" else 1
    if (arguments.seeds is not None and arguments.seeds < 1) or arguments.jobs < 1:
        parser.error("--seeds and --jobs must be at least 1")
    if arguments.world == "paper" and (arguments.seeds or arguments.phase or arguments.write_docs):
        parser.error("--seeds, --phase and --write-docs are of the miniature")
    if arguments.phase and (arguments.seeds or arguments.only):
        parser.error("--phase has points of its own (phase in the config): without --seeds and --only")
    return arguments


def _run(arguments: argparse.Namespace) -> int:
    return _run_paper(arguments) if arguments.world == "paper" else _run_miniature(arguments)


def _run_miniature(arguments: argparse.Namespace) -> int:
    settings, root = load_config(Settings, arguments.config), arguments.root
    seeds = arguments.seeds or settings.number_of_seeds
    points, cells = miniature.phase_steps(settings, root), choose(CELLS, arguments.only)
    planned = points if arguments.phase else miniature.steps(settings, root, seeds, cells)
    if arguments.dry_run:
        return dry_run(planned, arguments.jobs)
    for step in [*miniature.steps(settings, root, seeds, CELLS), *points]:  # the pages show all that is there
        if step.done():
            step.check_stamp()
    report = asyncio.run(Runner(planned, arguments.jobs, _say).run())
    if report.interrupted:
        return 130
    say_results(root, *write_results(root, seeds, arguments.write_docs))
    return _verdict(report, {step.name: step for step in planned})


def _run_paper(arguments: argparse.Namespace) -> int:
    settings = load_config(PaperSettings, arguments.config)
    known = paper.cells(settings)
    cells = choose(known, arguments.only) if arguments.only else paper.printed(known)
    planned = paper.steps(settings, arguments.root, cells)
    if left := [row for row, model in settings.baselines.items() if not model]:
        _say(f"not run, no model is named ({arguments.config} says how): {', '.join(left)}")
    if arguments.dry_run:
        return dry_run(planned, arguments.jobs)
    report = asyncio.run(Runner(planned, arguments.jobs, _say).run())
    if report.interrupted:
        return 130
    folder = write_report(settings, arguments.root, known)
    _say(f"report: {folder}/tables.md, {folder}/survival.png" if folder else "report: nothing is evaluated yet")
    return _verdict(report, {step.name: step for step in planned})


def dry_run(planned: list[Step], jobs: int) -> int:
    """Prints every command with what it will take, then runs each stage's own --dry-run, which checks its config: once
    for each config and ablation.
    """
    checks: dict[tuple[Path, str], Step] = {}
    for step in planned:
        takes = f"\n    {forecast(step.work)}" if step.work else ""
        print(f"{step.name}{' (finished)' if step.done() else ''}: {shlex.join(step.command)}{takes}", flush=True)
        word = next((item for item in step.command if item.startswith("ablation=")), "")
        checks.setdefault((step.config, word), step)
    if parts := [forecast(step.work) for step in planned if step.work and not step.done()]:
        print(f"together, of what is not finished: {total(parts)}; modelled (docs/scaling.md), expect a factor of two")
    with tempfile.TemporaryDirectory() as folder:
        own = [
            dataclasses.replace(
                step, command=(*step.command, "--dry-run"), folder=Path(folder), needs=(), records=(), files=()
            )
            for step in checks.values()
        ]
        report = asyncio.run(Runner(own, jobs, lambda text: print(text) if "FAILED" in text else None, True).run())
    said = f"{len(planned)} steps; {len(report.now)} of {len(own)} configs are sound"
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
