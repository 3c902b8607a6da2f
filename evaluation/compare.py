"""Compares any set of evaluated models, of one run or of several: tables, paired tests, survival.

Input: model folders (with answers.jsonl and verdicts.jsonl) or evaluation outputs that hold several. Output: tables on
the terminal and, with --output, tables.md, tables/ and survival.png.

    python -m evaluation.compare RUN [RUN ...] [--output DIR] [--judge NAME]
"""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from evaluation.config import PassConfig
from evaluation.multi_turn.judge import MAIN_JUDGE, VERDICTS, judge_file
from evaluation.report import tables
from evaluation.report.build import write_tables
from evaluation.report.figure import survival_png
from evaluation.report.results import load_result, pairs, survival_panels
from safer_steer.errors import UserError


def model_folders(runs: list[Path], judge: str) -> list[Path]:
    """The model folders that the given folders are or hold.

    Raises:
        UserError: a folder is neither.
    """
    found: list[Path] = []
    file = judge_file(VERDICTS, judge)
    for run in runs:
        inside = [run] if (run / file).is_file() else sorted(path.parent for path in run.glob(f"*/{file}"))
        if not inside:
            raise UserError(
                f"{run}: no {file} here or in a folder below; give a model folder, or the output of an evaluation"
            )
        found += [folder for folder in inside if folder not in found]
    return found


def short_names(folders: list[Path]) -> list[str]:
    """The shortest ends of the paths that tell the folders apart."""
    parts = [folder.resolve().parts for folder in folders]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]


def compare(runs: list[Path], output: Path | None, judge: str, console: Console) -> None:
    """Loads the models, prints the headline and the paired tests, and writes the files."""
    passing, folders = PassConfig(), model_folders(runs, judge)
    results = [
        load_result(folder, name, name, passing, judge)
        for folder, name in zip(folders, short_names(folders), strict=True)
    ]
    compared = pairs(results, passing)
    ours = [
        tables.headline(results, passing),
        tables.pairs_table(compared),
        tables.log_rank_table(compared),
        *tables.group_tables(results),
    ]
    ours += [
        tables.turn_table(results),
        tables.survival_table(results),
        tables.losses_table(results),
        tables.origin_table(results),
    ]
    judged = tables.judges_line({item for result in results for item in result.judges})
    console.print(tables.terminal_table(results, passing, "Comparison"))
    for pair in compared:
        rate = pair.paired.rates.get("safe")
        text = (
            f"safe {rate.difference:+.1f} points ({tables.between(rate.interval)}), p {tables.p_text(rate.p_value)}"
            if rate
            else "no shared dialogue with scores"
        )
        log_rank = f"; survival p {tables.p_text(pair.log_rank.p_value)}" if pair.log_rank else ""
        print(f"{pair.paired.b} − {pair.paired.a}: {text}{log_rank}; {pair.paired.n} shared dialogues")
    print(judged)
    if output:
        write_tables(output, ours, [], note=None, judge=judged)
        panels, limits = survival_panels(results), {"failure_below": passing.failure_below, "horizon": passing.horizon}
        (output / "survival.png").write_bytes(survival_png(panels, **limits, note=None))
        print(f"written: {output}/tables.md, {output}/tables/, {output}/survival.png")


def main() -> int:
    """Parses the command line; 0 on success, 2 after an error a user can mend."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--output", type=Path, help="folder for tables and figure")
    parser.add_argument("--judge", default=MAIN_JUDGE, help="whose verdicts (default: the main judge)")
    arguments = parser.parse_args()
    try:
        console = Console(width=None if sys.stdout.isatty() else 160)
        compare(arguments.runs, arguments.output, arguments.judge, console)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
