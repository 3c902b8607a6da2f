"""Compares any set of evaluated models, of one run or of several: tables, paired tests, survival, what got worse.

Input: model folders (with answers.jsonl and verdicts.jsonl) or evaluation outputs that hold several; when a dialogue
passes is what the outputs' summary.json say. Output: tables on the terminal and, with --output, a report as of an
evaluation, whose dialogues are sorted by what got worse from one model to the next.

    python -m evaluation.compare RUN [RUN ...] [--output DIR] [--judge NAME]
"""

if __name__ == "__main__":  # before the imports below, which take seconds
    from safer_steer import interrupts

    interrupts.watch()

import argparse
import json
import sys
from itertools import combinations
from pathlib import Path

from rich.console import Console

from evaluation.config import ADAPTIVE, ReportConfig
from evaluation.multi_turn.aggregate import Numbers, PassConfig
from evaluation.multi_turn.inference import ANSWERS, sample_of
from evaluation.multi_turn.judge import MAIN_JUDGE, VERDICTS, judge_file
from evaluation.report import tables
from evaluation.report.build import FILES, SUMMARY, write_pages
from evaluation.report.families import moves_table
from evaluation.report.results import ModelResult, load_result, pairs
from evaluation.report.user_turns import user_turns_notes
from evaluation.report.worse import worse_table
from safer_steer.cli import exit_code
from safer_steer.dialogue import Dialogue, stable_hash
from safer_steer.errors import UserError
from safer_steer.store import read_jsonl


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


def passing_of(folders: list[Path]) -> PassConfig:
    """When a dialogue passes and a turn fails, by the evaluations' `summary.json`; the default where there is none.

    Raises:
        UserError: two evaluations differ in it.
    """
    found: dict[Path, PassConfig] = {}
    outputs = [folder.parent.parent if folder.parent.name == ADAPTIVE else folder.parent for folder in folders]
    for path in dict.fromkeys(output / SUMMARY for output in outputs):
        if path.is_file():
            found[path] = PassConfig.model_validate(json.loads(path.read_text(encoding="utf-8"))["passing"])
    if not found:
        return PassConfig()
    (first, passing), *others = found.items()
    for path, other in others:
        different = [
            f"{name} {value:g} and {getattr(other, name):g}"
            for name, value in passing.model_dump().items()
            if not name.startswith("bootstrap") and value != getattr(other, name)
        ]
        if different:
            raise UserError(
                f"{first} and {path} were made by different passing: {', '.join(different)}; build the reports again "
                "by the same passing (the same command again, no call is repeated), then compare"
            )
    return passing


def modes_note(results: list[ModelResult]) -> str | None:
    """A warning when some answers are to the benchmark's user turns and others to those that a tutor wrote."""
    modes = {result.title: result.origin["mode"] for result in results if result.origin}
    if len(set(modes.values())) < 2:
        return None
    named = ", ".join(f"{title} {mode}" for title, mode in modes.items())
    return f"Different user turns: {named}. The models were not asked the same; the tests below are of model and turns."


def benchmarks_notes(results: list[ModelResult]) -> list[str]:
    """Where two models played other benchmarks, or files or pictures of the same name that are not the same."""
    notes = []
    for a, b in combinations(results, 2):
        names = [", ".join(sorted(result.numbers["by_benchmark"])) for result in (a, b)]
        if names[0] != names[1]:
            notes.append(f"Different benchmarks: {a.title} played {names[0]}; {b.title} played {names[1]}.")
        files = [result.origin.get("inputs", {}) for result in (a, b)]
        if changed := sorted(name for name in files[0].keys() & files[1].keys() if files[0][name] != files[1][name]):
            notes.append(f"Not the same in {a.title} and {b.title}, by the recorded hashes: {', '.join(changed)}.")
    return notes


def unlike_dialogues(results: list[ModelResult]) -> dict[tuple[str, str], set[str]]:
    """Names of two models -> dialogues of the same id whose benchmark or planned user turns differ: no pairs."""
    planned = [_planned(result) for result in results]
    return {
        (a.name, b.name): differing
        for (a, first), (b, second) in combinations(zip(results, planned, strict=True), 2)
        if (differing := {key for key in first.keys() & second.keys() if first[key] != second[key]})
    }


def _planned(result: ModelResult) -> dict[str, str]:
    """Dialogue -> hash of its benchmark and of the user turns that the benchmark has, whoever wrote those asked."""
    found = {}
    for row in read_jsonl(result.folder / ANSWERS, Dialogue):
        turns = [turn.template if result.adaptive and "adapted" in turn.meta else turn.user for turn in row.turns]
        found[sample_of(row)[0]] = stable_hash(row.meta["benchmark"], turns)
    return found


def pair_line(pair: Numbers) -> str:
    """How two models compare, in a line."""
    text = "no shared dialogue with scores"
    if rate := pair["rates"].get("safe"):
        interval = tables.between(rate["interval"])
        text = f"safe {rate['difference']:+.1f} points ({interval}), p {tables.p_text(rate['p_value'])}"
    if pair["log_rank"]:
        text += f"; survival p {tables.p_text(pair['log_rank']['p_value'])}"
    return f"{pair['b']} − {pair['a']}: {text}; {pair['n']} shared dialogues"


def compare(runs: list[Path], output: Path | None, judge: str, console: Console) -> None:
    """Loads the models, prints the headline and the paired tests, and writes the files."""
    folders = model_folders(runs, judge)
    passing = passing_of(folders)
    results = [
        load_result(folder, name, name, passing, judge)
        for folder, name in zip(folders, short_names(folders), strict=True)
    ]
    unlike = unlike_dialogues(results)
    compared = pairs(results, passing, unlike=unlike)
    titles = {result.name: result.title for result in results}
    notes = [*filter(None, [modes_note(results)]), *benchmarks_notes(results)]
    notes += [
        f"{titles[b]} and {titles[a]}: {len(ids)} dialogues of the same id are not compared, as their benchmark or "
        "user turns differ."
        for (a, b), ids in unlike.items()
    ]
    main, moves = tables.headline(results, passing), moves_table(results, None)
    ours = [main, *([moves] if moves else []), *([worse_table(results, unlike)] if compared else [])]
    ours += [
        tables.pairs_table(compared),
        tables.log_rank_table(compared),
        *tables.group_tables(results),
        tables.by_turn_table(results),
        *tables.survival_tables(results),
    ]
    ours += [tables.losses_table(results), tables.origin_table(results)]
    judged = tables.judges_line({item for result in results for item in result.judges})
    console.print(tables.terminal_table(main, results, "Comparison"))
    for note in [*notes, *user_turns_notes(results)]:
        print(note)
    for pair in compared:
        print(pair_line(pair))
    print(judged)
    if output:
        write_pages(
            ReportConfig(folder=str(output), note=" ".join(notes) or None, judge=judge), passing, results, ours, []
        )
        print(f"written: {', '.join(str(output / name) for name in FILES)}")


def main() -> int:
    """Parses the command line; 0 on success, 2 after an error a user can fix."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--output", type=Path, help="folder for the report")
    parser.add_argument("--judge", default=MAIN_JUDGE, help="whose verdicts (default: the main judge)")
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 160)
    return exit_code(lambda: compare(arguments.runs, arguments.output, arguments.judge, console))


if __name__ == "__main__":
    sys.exit(main())
