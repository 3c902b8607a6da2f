"""Builds the report: one static folder out of every model's answers and verdicts, and `summary.json` next to them.

<report>/index.html (numbers, figures), transcripts.html (the browser, with data/, pictures/, assets/), tables.md,
tables/*.csv and *.tex, survival.png; and `<output>/<model>/dialogues.jsonl`, what became of each dialogue. A report
built from the same files by the same config, as its fingerprint.txt says, is left as it is.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from evaluation.benchmarks import benchmark_files
from evaluation.config import EvaluationConfig
from evaluation.multi_turn.aggregate import OUTCOME, Numbers, plain_rows, turn_table
from evaluation.multi_turn.agreement import agreement
from evaluation.multi_turn.inference import ANSWERS
from evaluation.multi_turn.judge import VERDICTS, judge_file
from evaluation.multi_turn.verdicts import read_verdicts
from evaluation.report import tables
from evaluation.report.browser_data import ModelFiles, chosen_dialogues, read_model, write_browser_data
from evaluation.report.figures import METRICS, curves_png, read_curves, survival_png
from evaluation.report.formats import ResultTable, csv_text, latex, markdown
from evaluation.report.pages import heat_rows, write_browser_page, write_first_page
from evaluation.report.paper_form import paper_form_tables
from evaluation.report.requests import requests_table, step_records
from evaluation.report.results import ModelResult, load_result, pairs, summary, survival_panels
from safer_steer.dialogue import Dialogue, stable_hash
from safer_steer.picture_digest import file_digest
from safer_steer.store import read_jsonl, write_atomic, write_jsonl

SUMMARY, FINGERPRINT, DIALOGUES = "summary.json", "fingerprint.txt", "dialogues.jsonl"
FILES = ("index.html", "tables.md", "survival.png", "transcripts.html")


@dataclass(frozen=True)
class Report:
    """The report of one evaluation."""

    config: EvaluationConfig

    @property
    def folder(self) -> Path:
        """Where the report lies."""
        return Path(self.config.report.folder)

    def model_folder(self, name: str) -> Path:
        """Where a model's answers and verdicts lie."""
        return Path(self.config.output, name)

    def build(self) -> bool:
        """Writes everything, unless it is there already; prints the headline table either way.

        Returns:
            Whether anything was written.

        Raises:
            UserError: a model has no verdicts yet.
        """
        report, passing = self.config.report, self.config.passing
        results = [
            load_result(self.model_folder(name), name, self.config.title(name), passing, report.judge)
            for name in self.config.models
        ]
        fingerprint = self._fingerprint()
        written = not self._is_current(fingerprint)
        if written:
            self._write(results, fingerprint)
        Console(width=None if Console().is_terminal else 160).print(
            tables.terminal_table(results, passing, report.note or "Evaluation")
        )
        return written

    def _verdicts(self, name: str, judge: str) -> Path:
        return self.model_folder(name) / judge_file(VERDICTS, judge)

    def _fingerprint(self) -> str:
        report, data = self.config.report, []
        for name in self.config.models:
            data += [self.model_folder(name) / ANSWERS, *(self._verdicts(name, j) for j in self.config.all_judges())]
        data += [path for files in self._splits().values() for path in map(Path, files)]
        data += [path for folder in report.training.values() for path in sorted(Path(folder).glob("*.jsonl"))]
        sources = sorted(path for path in Path(__file__).parents[1].rglob("*.*") if path.suffix != ".pyc")
        hashes = list(filter(None, map(file_digest, [*data, *sources])))
        titles = [self.config.title(name) for name in self.config.models]
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

    def _write(self, results: list[ModelResult], fingerprint: str) -> None:
        report, passing = self.config.report, self.config.passing
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / FINGERPRINT).unlink(missing_ok=True)  # a report cut short is nobody's
        compared, agreed = pairs(results, passing), self._agreement()
        ours = self._our_tables(results, compared, agreed)
        paper = paper_form_tables(results, report.paper_rows, self._splits())
        judge = tables.judges_line({judge for result in results for judge in result.judges})
        write_tables(self.folder, ours, paper, note=report.note, judge=judge)
        content = {"note": report.note, "judge": judge, "tables": ours, "paper": paper}
        turns, rows = heat_rows(results)
        content |= {"heat": {"turns": turns, "rows": rows}, "survival": self._survival(results)}
        write_first_page(self.folder, **content, training=self._training())
        write_browser_page(self.folder)
        chosen, total = chosen_dialogues([result.dialogues for result in results], report.max_dialogues)
        models = [self._files(result, chosen) for result in results]
        write_browser_data(
            self.folder,
            models,
            total=total,
            failure_below=passing.failure_below,
            picture_side=report.picture_side,
            note=report.note,
        )
        for result in results:
            outcomes = result.dialogues[list(OUTCOME)].rename_axis("id").sort_index().reset_index()
            write_jsonl(self.model_folder(result.name) / DIALOGUES, plain_rows(outcomes))
        numbers = {"note": report.note} | summary(results, compared, passing) | {"fingerprint": fingerprint}
        numbers |= {"judged_by": report.judge, "agreement": agreed}
        write_atomic(Path(self.config.output, SUMMARY), json.dumps(numbers, indent=1, ensure_ascii=False) + "\n")
        write_atomic(self.folder / FINGERPRINT, fingerprint)

    def _our_tables(
        self, results: list[ModelResult], compared: list[Numbers], agreed: dict[str, list[Numbers]]
    ) -> list[ResultTable]:
        found = [tables.headline(results, self.config.passing), *tables.group_tables(results)]
        found += [tables.by_turn_table(results), tables.survival_table(results), tables.losses_table(results)]
        found += [tables.pairs_table(compared), tables.log_rank_table(compared)] if compared else []
        found += [tables.agreement_table(agreed)] if agreed else []
        changed = requests_table(self._records())
        return [*found, *([changed] if changed else []), tables.origin_table(results)]

    def _records(self) -> dict[str, list[Path]]:
        return {self.config.title(name): step_records(self.model_folder(name)) for name in self.config.models}

    def _agreement(self) -> dict[str, list[Numbers]]:
        """Title -> agreement of all judges on the model's answers; empty with one judge."""
        judges = self.config.all_judges()
        if len(judges) < 2:
            return {}
        return {
            self.config.title(name): agreement(
                {judge: turn_table(read_verdicts(self._verdicts(name, judge))) for judge in judges}
            )
            for name in self.config.models
        }

    def _files(self, result: ModelResult, chosen: set[str]) -> ModelFiles:
        folder = self.model_folder(result.name)
        verdicts = read_verdicts(self._verdicts(result.name, self.config.report.judge))
        rows = read_jsonl(folder / ANSWERS, Dialogue), verdicts
        return read_model(result.title, folder, rows, result.dialogues, chosen)

    def _survival(self, results: list[ModelResult]) -> dict[str, str]:
        passing = self.config.passing
        figure = survival_png(
            survival_panels(results),
            failure_below=passing.failure_below,
            horizon=passing.horizon,
            note=self.config.report.note,
        )
        (self.folder / "survival.png").write_bytes(figure)
        alt = "Survival curves: share of dialogues without a failure up to each turn; numbers in Survival by benchmark"
        return {"file": "survival.png", "alt": alt}

    def _training(self) -> dict[str, str] | None:
        runs = {run: read_curves(Path(folder)) for run, folder in self.config.report.training.items()}
        if not any(runs.values()):
            return None
        (self.folder / "training.png").write_bytes(curves_png(runs))
        ends = (
            f"{run}, {METRICS[metric]}: {values[0]:.3g} to {values[-1]:.3g}"
            for run, curves in runs.items()
            for metric, (_, values) in curves.items()
        )
        return {"file": "training.png", "alt": "Training curves. " + "; ".join(ends)}


def write_tables(
    folder: Path, ours: list[ResultTable], paper: list[ResultTable], *, note: str | None, judge: str
) -> None:
    """`tables.md` with everything, and each table as CSV and LaTeX below `tables/`."""
    parts = [f"**{note}**"] if note else []
    first, *others = ours
    parts += ["# Evaluation", markdown(first), judge, *(markdown(table) for table in others)]
    if paper:
        parts += ["# Next to the paper", "arXiv 2604.16358 as printed; † marks numbers that do not add up as printed."]
        parts += [markdown(table) for table in paper]
    write_atomic(folder / "tables.md", "\n\n".join(parts) + "\n")
    for table in (*ours, *paper):
        write_atomic(folder / "tables" / f"{table.name}.csv", csv_text(table))
        write_atomic(folder / "tables" / f"{table.name}.tex", latex(table))
