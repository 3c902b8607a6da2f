"""Builds the report: one static folder out of every model's answers and verdicts, and `summary.json` next to them.

<report>/index.html (numbers, figures), transcripts.html (the browser, with data/, pictures/, assets/), tables.md,
tables/*.csv and *.tex, survival.png and .svg where there are multi-turn dialogues; and
`<output>/<model>/dialogues.jsonl`, what became of each dialogue. A report built from the same files
by the same config, as its fingerprint.txt says, is left as it is.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from evaluation.benchmarks import benchmark_files
from evaluation.config import ADAPTIVE, EvaluationConfig, ReportConfig
from evaluation.multi_turn.aggregate import OUTCOME, Numbers, PassConfig, plain_rows, turn_table
from evaluation.multi_turn.agreement import agreement
from evaluation.multi_turn.inference import ANSWERS, REJECTS
from evaluation.multi_turn.judge import VERDICTS, judge_file
from evaluation.multi_turn.verdicts import read_verdicts
from evaluation.report import tables
from evaluation.report.browser_data import chosen_dialogues, read_model, write_browser_data
from evaluation.report.families import moves_table, trained
from evaluation.report.figures import METRICS, read_curves, write_curves, write_survival
from evaluation.report.formats import ResultTable, csv_text, latex, markdown
from evaluation.report.pages import heat_rows, write_browser_page, write_first_page
from evaluation.report.paper_form import paper_form_tables
from evaluation.report.requests import requests_table, step_records
from evaluation.report.results import ModelResult, by_mode, load_result, pairs, summary, survival_panels
from evaluation.report.user_turns import user_turns_notes
from safer_steer.dialogue import Dialogue, stable_hash
from safer_steer.markdown import plain
from safer_steer.picture_digest import file_digest
from safer_steer.store import read_jsonl, write_atomic, write_jsonl

SUMMARY, FINGERPRINT, DIALOGUES = "summary.json", "fingerprint.txt", "dialogues.jsonl"
FILES = ("index.html", "tables.md", "transcripts.html")
SURVIVAL = ("survival.svg", "survival.png")


@dataclass(frozen=True)
class Report:
    """The report of one evaluation."""

    config: EvaluationConfig

    @property
    def folder(self) -> Path:
        """Where the report lies."""
        return Path(self.config.report.folder)

    def played(self) -> list[tuple[Path, str, str]]:
        """All models, and with mode `both` all of them once more, attacked by the tutor: folder, key in the numbers,
        which is the folder's path within the output, and title.
        """
        first, *attacked = self.config.parts()
        found = [(Path(first.output, name), name, self.config.title(name)) for name in first.models]
        return found + [
            (Path(part.output, name), f"{ADAPTIVE}/{name}", f"{part.title(name)}, {ADAPTIVE}")
            for part in attacked
            for name in part.models
        ]

    def build(self) -> bool:
        """Writes everything, unless it is there already; prints the headline table either way.

        Returns:
            Whether anything was written.

        Raises:
            UserError: a model has no verdicts yet.
        """
        report, passing = self.config.report, self.config.passing
        played = [load_result(*model, passing, report.judge) for model in self.played()]
        results, attacked = by_mode(played)
        compared = pairs(results, passing, attacked)
        fingerprint = self._fingerprint()
        written = not self._is_current(fingerprint)
        if written:
            self._write(results, attacked, compared, fingerprint)
        source = tables.headline(results, passing, attacked, compared)
        Console(width=None if Console().is_terminal else 160).print(
            tables.terminal_table(source, results, report.note or "Evaluation")
        )
        for note in user_turns_notes(played):
            print(note)
        return written

    def _fingerprint(self) -> str:
        report, data = self.config.report, []
        for folder, _, _ in self.played():
            files = [ANSWERS, REJECTS, *(judge_file(VERDICTS, judge) for judge in self.config.all_judges())]
            data += [folder / file for file in files]
        data += [path for files in self._splits().values() for path in map(Path, files)]
        data += [path for run in report.training.values() for path in sorted(Path(run).glob("*.jsonl"))]
        sources = sorted(path for path in Path(__file__).parents[1].rglob("*.*") if path.suffix != ".pyc")
        hashes = list(filter(None, map(file_digest, [*data, *sources])))
        titles = [title for _, _, title in self.played()]
        changed = requests_table(self._records())
        rows = changed.rows if changed else []
        return stable_hash(hashes, titles, rows, self.config.passing.model_dump(), report.model_dump())

    def _is_current(self, fingerprint: str) -> bool:
        path, beside = Path(self.config.output, SUMMARY), self.folder / FINGERPRINT
        if not all(file.is_file() for file in (path, beside, *(self.folder / name for name in FILES))):
            return False
        # The report's own too: another run may have written its report into the same folder since.
        found = json.loads(path.read_text(encoding="utf-8")).get("fingerprint"), beside.read_text(encoding="utf-8")
        return found == (fingerprint, fingerprint)

    def _splits(self) -> dict[str, list[str]]:
        bench = [str(path) for path in benchmark_files(self.config.benchmarks).values()]
        return {"STEER-Bench": bench} | {name: [path] for name, path in self.config.report.splits.items()}

    def _write(
        self, results: list[ModelResult], attacked: dict[str, ModelResult], compared: list[Numbers], fingerprint: str
    ) -> None:
        report, passing, played = self.config.report, self.config.passing, [*results, *attacked.values()]
        agreed = self._agreement()
        ours = self._our_tables(results, attacked, compared, agreed)
        paper = paper_form_tables(results, report.paper_rows, self._splits())
        write_pages(report, passing, played, ours, paper)
        for result in played:
            outcomes = result.dialogues[list(OUTCOME)].rename_axis("id").sort_index().reset_index()
            write_jsonl(result.folder / DIALOGUES, plain_rows(outcomes))
        numbers = {"note": report.note} | summary(played, compared, passing) | {"fingerprint": fingerprint}
        numbers |= {"judged_by": report.judge, "agreement": agreed}
        write_atomic(Path(self.config.output, SUMMARY), json.dumps(numbers, indent=1, ensure_ascii=False) + "\n")
        write_atomic(self.folder / FINGERPRINT, fingerprint)

    def _our_tables(
        self,
        results: list[ModelResult],
        attacked: dict[str, ModelResult],
        compared: list[Numbers],
        agreed: dict[str, list[Numbers]],
    ) -> list[ResultTable]:
        played = [*results, *attacked.values()]
        families = trained(self.config.report.splits, self.config.report.training)
        moves, changed = moves_table(played, families.moves), requests_table(self._records())
        found = [tables.headline(results, self.config.passing, attacked, compared), *([moves] if moves else [])]
        found += tables.group_tables(played, families.strategies)
        found += [tables.by_turn_table(played), *tables.survival_tables(played), tables.losses_table(played)]
        found += [tables.pairs_table(compared), tables.log_rank_table(compared)] if compared else []
        found += [tables.agreement_table(agreed)] if agreed else []
        return [*found, *([changed] if changed else []), tables.origin_table(played)]

    def _records(self) -> dict[str, list[Path]]:
        return {title: step_records(folder) for folder, _, title in self.played()}

    def _agreement(self) -> dict[str, list[Numbers]]:
        """Title -> agreement of all judges on the model's answers; empty with one judge."""
        judges = self.config.all_judges()
        if len(judges) < 2:
            return {}
        return {
            title: agreement(
                {judge: turn_table(read_verdicts(folder / judge_file(VERDICTS, judge))) for judge in judges}
            )
            for folder, _, title in self.played()
        }


def write_pages(
    report: ReportConfig,
    passing: PassConfig,
    results: list[ModelResult],
    ours: list[ResultTable],
    paper: list[ResultTable],
) -> None:
    """Everything of a report's folder that people read: both pages with their data, the tables, survival.

    Args:
        report: where, and what is said besides.
        passing: which turns fail.
        results: the models, in the order of the browser.
        ours: our tables, the main one first.
        paper: the paper's with ours next to them.
    """
    folder, judge = Path(report.folder), tables.judges_line({judge for result in results for judge in result.judges})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FINGERPRINT).unlink(missing_ok=True)  # a report cut short is nobody's
    write_tables(folder, ours, paper, note=report.note, judge=judge)
    survival = None
    if panels := survival_panels(results):
        limits = {"failure_below": passing.failure_below, "horizon": passing.horizon}
        write_survival(folder / SURVIVAL[0], panels, **limits, note=report.note)
        alt = "Survival curves: share of dialogues without a failure up to each turn; numbers in Survival by benchmark"
        survival = {"file": "survival", "alt": alt}
    else:
        for name in SURVIVAL:  # of an earlier report
            (folder / name).unlink(missing_ok=True)
    turns, rows = heat_rows(results)
    content = {"note": report.note, "judge": judge, "tables": ours, "paper": paper, "training": _training(report)}
    content |= {"heat": {"turns": turns, "rows": rows}, "survival": survival}
    write_first_page(folder, **content)
    write_browser_page(folder)
    chosen, total = chosen_dialogues([result.dialogues for result in results], report.max_dialogues)
    models = []
    for result in results:
        verdicts = read_verdicts(result.folder / judge_file(VERDICTS, report.judge))
        answers = read_jsonl(result.folder / ANSWERS, Dialogue)
        models.append(read_model(result.title, result.folder, (answers, verdicts), result.dialogues, chosen))
    write_browser_data(
        folder,
        models,
        total=total,
        failure_below=passing.failure_below,
        picture_side=report.picture_side,
        note=report.note,
    )


def _training(report: ReportConfig) -> dict[str, str] | None:
    """Draws the training runs' curves; the figure's name and alternative text, None where there is no curve."""
    runs = {run: read_curves(Path(folder)) for run, folder in report.training.items()}
    if not any(runs.values()):
        return None
    write_curves(Path(report.folder, "training.svg"), runs)
    ends = (
        f"{run}, {METRICS[metric]}: {values[0]:.3g} to {values[-1]:.3g}"
        for run, curves in runs.items()
        for metric, (_, values) in curves.items()
    )
    return {"file": "training", "alt": "Training curves. " + "; ".join(ends)}


def write_tables(
    folder: Path, ours: list[ResultTable], paper: list[ResultTable], *, note: str | None, judge: str
) -> None:
    """`tables.md` with everything, and each table as CSV and LaTeX below `tables/`, where an earlier report's are
    removed that this one has not.
    """
    parts = [f"**{plain(note)}**"] if note else []
    first, *others = ours
    parts += ["# Evaluation", markdown(first), plain(judge), *(markdown(table) for table in others)]
    if paper:
        parts += ["# Next to the paper", "arXiv 2604.16358 as printed; † marks numbers that do not add up as printed."]
        parts += [markdown(table) for table in paper]
    write_atomic(folder / "tables.md", "\n\n".join(parts) + "\n")
    names = {table.name for table in (*ours, *paper)}
    for path in (folder / "tables").glob("*.csv"):
        if path.stem not in names and path.with_suffix(".tex").is_file():  # both: none that a user put there
            path.unlink()
            path.with_suffix(".tex").unlink()
    for table in (*ours, *paper):
        write_atomic(folder / "tables" / f"{table.name}.csv", csv_text(table))
        write_atomic(folder / "tables" / f"{table.name}.tex", latex(table))
