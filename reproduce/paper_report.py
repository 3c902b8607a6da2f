"""One report of all cells that have been evaluated, next to the paper's printed numbers: `<root>/report/`."""

from pathlib import Path

from evaluation.multi_turn.aggregate import PassConfig
from evaluation.report import tables
from evaluation.report.build import write_tables
from evaluation.report.figures import write_survival
from evaluation.report.paper_form import paper_form_tables
from evaluation.report.results import load_result, survival_panels
from reproduce.paper import PaperCell, bench, output
from reproduce.settings import PaperSettings


def write_report(settings: PaperSettings, root: Path, known: dict[str, PaperCell]) -> Path | None:
    """Writes `tables.md`, `tables/` and `survival.png` (Figure 4); None where nothing has been evaluated yet."""
    passing, rows, results = PassConfig(), {}, []
    for name, cell in known.items():
        place = output(settings, root, cell)
        if (place / "summary.json").is_file():
            rows[name] = cell.row
            results.append(load_result(place / "model", name, cell.row, passing))
    if not results:
        return None
    data, folder = bench(root).parent, root / "report"
    splits = {"STEER-SFT": [str(data / "steer_sft.jsonl")], "STEER-RL": [str(data / "steer_rl.jsonl")]}
    splits |= {"STEER-Bench": [str(path) for path in sorted(bench(root).glob("*.jsonl"))]}
    ours = [tables.headline(results, passing), *tables.group_tables(results), *tables.survival_tables(results)]
    ours += [tables.losses_table(results), tables.origin_table(results)]
    judged = tables.judges_line({judge for result in results for judge in result.judges})
    write_tables(folder, ours, paper_form_tables(results, rows, splits), note=None, judge=judged)
    if panels := survival_panels(results):
        limits = {"failure_below": passing.failure_below, "horizon": passing.horizon}
        write_survival(folder / "survival.png", panels, **limits, note=None)
    return folder
