"""Builds the report: reads every model's answers and verdicts, writes tables, figure, transcript page and
`summary.json`.

A report that was built from the same files by the same config is left as it is.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from evaluation.config import EvaluationConfig
from evaluation.multi_turn.inference import ANSWERS, REJECTS, count_ends
from evaluation.multi_turn.judge import VERDICTS
from evaluation.multi_turn.verdicts import read_verdicts
from evaluation.report.figure import survival_png
from evaluation.report.results import ModelResult, model_result, summary
from evaluation.report.tables import HEADLINE, headline_row, tables_markdown, terminal_table
from evaluation.report.transcripts import model_transcripts, transcripts_page
from safer_steer.dialogue import Dialogue, stable_hash
from safer_steer.errors import UserError
from safer_steer.store import read_jsonl, write_atomic

SUMMARY = "summary.json"
FILES = ("tables.md", "survival.png", "transcripts.html")


@dataclass(frozen=True)
class Report:
    """The report of one evaluation."""

    config: EvaluationConfig

    @property
    def folder(self) -> Path:
        """Where the tables, the figure and the page lie."""
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
        results = [self._result(name) for name in self.config.models]
        fingerprint = self._fingerprint()
        written = not self._is_current(fingerprint)
        if written:
            self._write(results, fingerprint)
        Console(width=None if Console().is_terminal else 160).print(
            terminal_table(results, self.config.report.note or "Multi-turn evaluation")
        )
        return written

    def _result(self, name: str) -> ModelResult:
        folder = self.model_folder(name)
        if not (folder / VERDICTS).is_file():
            raise UserError(f"model {name} has no verdicts at {folder / VERDICTS}; run inference and judging first")
        answered = {row["id"] for row in read_jsonl(folder / ANSWERS)}
        rejects = (
            sum(row["id"] not in answered for row in read_jsonl(folder / REJECTS))
            if (folder / REJECTS).is_file()
            else 0
        )
        verdicts = read_verdicts(folder / VERDICTS)
        return model_result(
            name, self.config.title(name), verdicts, self.config.passing, count_ends(folder / ANSWERS), rejects
        )

    def _fingerprint(self) -> str:
        files = [self.model_folder(name) / file for name in self.config.models for file in (ANSWERS, VERDICTS)]
        sources = sorted(Path(__file__).parent.glob("*.*"))
        hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in [*files, *sources]]
        titles = [self.config.title(name) for name in self.config.models]
        return stable_hash(hashes, titles, self.config.passing.model_dump(), self.config.report.model_dump())

    def _is_current(self, fingerprint: str) -> bool:
        path = Path(self.config.output, SUMMARY)
        if not path.is_file() or not all((self.folder / name).is_file() for name in FILES):
            return False
        return json.loads(path.read_text(encoding="utf-8")).get("fingerprint") == fingerprint

    def _write(self, results: list[ModelResult], fingerprint: str) -> None:
        passing, report = self.config.passing, self.config.report
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomic(self.folder / "tables.md", tables_markdown(results, self.config))
        curves = {result.title: result.survival for result in results}
        figure = survival_png(curves, failure_below=passing.failure_below, horizon=passing.horizon, note=report.note)
        (self.folder / "survival.png").write_bytes(figure)
        models = {}
        for result in results:
            folder = self.model_folder(result.name)
            answers, verdicts = read_jsonl(folder / ANSWERS, Dialogue), read_verdicts(folder / VERDICTS)
            entries, total = model_transcripts(
                answers, verdicts, passing.rule(), passing.failure_below, report.transcripts_per_model
            )
            models[result.title] = (entries, total, folder)
        page = transcripts_page(
            models,
            headline=(list(HEADLINE), [headline_row(result) for result in results]),
            survival_png=figure,
            note=report.note,
            picture_side=report.picture_side,
        )
        write_atomic(self.folder / "transcripts.html", page)
        content = summary(results, self.config) | {"fingerprint": fingerprint}
        write_atomic(Path(self.config.output, SUMMARY), json.dumps(content, indent=1, ensure_ascii=False) + "\n")
