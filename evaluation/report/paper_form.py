"""Our numbers in the form of the paper's Tables 1 to 5, 8 and 9: under each row of the paper ours, or "not run"."""

from pathlib import Path

from evaluation.benchmarks import benchmark
from evaluation.multi_turn.aggregate import plain_mean
from evaluation.report.formats import NOT_RUN, Cell, ResultTable
from evaluation.report.paper import AVERAGE, PaperTable, paper_tables, print_errors, system
from evaluation.report.results import ModelResult
from safer_steer.dialogue import Dialogue
from safer_steer.row_files import read_rows

FLAG = "†"


def paper_form_tables(
    results: list[ModelResult], paper_rows: dict[str, str], splits: dict[str, list[str]]
) -> list[ResultTable]:
    """All tables.

    Args:
        results: our models; those that a tutor attacked are left out, as the paper's are of the benchmark's own turns.
        paper_rows: model name -> a row of the paper that it stands for.
        splits: STEER-SFT, STEER-RL, STEER-Bench -> JSONL files of this run.
    """
    results = [result for result in results if not result.adaptive]
    ours = {result.name: result for result in results}
    systems = {name: system(row) for name, row in paper_rows.items() if name in ours}
    tables = []
    for name, table in paper_tables().items():
        if name == "table1":
            tables.append(_splits_table(table, splits))
            continue
        by_system: dict[str, list[ModelResult]] = {}
        for model, row in systems.items():
            by_system.setdefault(row, []).append(ours[model])
        tables.append(_system_table(table, by_system, [r for r in results if r.name not in systems]))
    return tables


def _system_table(
    table: PaperTable, by_system: dict[str, list[ModelResult]], further: list[ModelResult]
) -> ResultTable:
    errors = print_errors(table.name)
    flagged = {row for row, _ in errors}
    rows: list[list[Cell]] = []
    for row, cells in table.rows.items():
        rows.append([row, f"paper {FLAG}" if row in flagged else "paper", *(cells[name] for name in table.columns)])
        found = by_system.get(system(row), [])
        rows += [["", f"ours: {result.title}", *_ours(result, table)] for result in found]
        if not found:
            rows.append(["", "ours", *[NOT_RUN] * len(table.columns)])
    if table.name in ("table2", "table3"):
        rows += [[result.title, "ours", *_ours(result, table)] for result in further]
    notes = [f"{FLAG} {row}: {message}." for row, message in errors]
    return ResultTable(table.name, table.label, ["system", "source", *table.columns], rows, notes)


def _ours(result: ModelResult, table: PaperTable) -> list[Cell]:
    """Our numbers for the columns of a table; an average only where every benchmark of the paper's table was run."""
    source = "table2" if table.name == "table2" else "table3"
    known = {}
    for name, group in result.numbers["by_benchmark"].items():
        found = benchmark(name)
        if found.table == source and group["safe"] is not None:
            known[found.column] = (group["safe"], group["help"])
    wanted = [name for name in paper_tables()[source].columns if name != AVERAGE]
    if all(name in known for name in wanted):
        known[AVERAGE] = (plain_mean(known[name][0] for name in wanted), plain_mean(known[name][1] for name in wanted))
    return [known.get(name, NOT_RUN) for name in table.columns]


def _splits_table(table: PaperTable, splits: dict[str, list[str]]) -> ResultTable:
    rows: list[list[Cell]] = []
    for name, cells in table.rows.items():
        rows.append([name, "paper", *(f"{cells[column]:,}" for column in table.columns)])
        files = [path for path in splits.get(name, []) if Path(path).is_file()]
        found_rows = (row for path in files for row in read_rows(path, Dialogue))
        lengths = [len(row.turns) for row in found_rows if isinstance(row, Dialogue)]
        found = [f"{len(lengths):,}", f"{sum(lengths) / len(lengths):.2f}"] if lengths else [NOT_RUN, NOT_RUN]
        rows.append(["", "ours", *found])
    return ResultTable(table.name, table.label, ["split", "source", *table.columns], rows)
