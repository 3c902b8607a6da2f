"""Result tables: Markdown for `tables.md`, the same headline table for the terminal (rich)."""

from dataclasses import dataclass
from pathlib import Path

import yaml
from rich.table import Table

from evaluation.benchmarks import PAPER_COLUMNS, paper_column
from evaluation.config import EvaluationConfig
from evaluation.multi_turn.aggregate import Rates
from evaluation.report.results import ModelResult
from safer_steer.errors import UserError

NOT_RUN = "not run"
NONE = "–"
HEADLINE = (
    "model",
    "safe %",
    "help %",
    "joint %",
    "safe 95 % interval",
    "benign help %",
    "unscored turns",
    "dialogues",
    "left out",
    "median turn of first failure",
)


@dataclass(frozen=True)
class PaperTable:
    """A result table as printed in the paper: row -> column -> (safe, help) in percent."""

    title: str
    rows: dict[str, dict[str, tuple[float, float]]]


def paper_table(name: str) -> PaperTable:
    """One of the paper's tables, by its name in `paper_tables.yaml`."""
    data = yaml.safe_load(Path(__file__).with_name("paper_tables.yaml").read_text(encoding="utf-8"))[name]
    rows = {
        row: {column: (safe, helpful) for column, (safe, helpful) in zip(data["columns"], cells, strict=True)}
        for row, cells in data["rows"].items()
    }
    return PaperTable(data["title"], rows)


def percent(value: float | None) -> str:
    """A rate with one decimal; a dash when there is none."""
    return NONE if value is None else f"{value:.1f}"


def headline_row(result: ModelResult) -> list[str]:
    """One model's row, in the order of `HEADLINE`."""
    overall = result.numbers.overall
    interval = NONE if overall.safe_ci is None else f"{percent(overall.safe_ci[0])} – {percent(overall.safe_ci[1])}"
    median = "none" if result.survival.median is None else str(result.survival.median)
    rates = [
        percent(overall.safe),
        percent(overall.help),
        percent(overall.joint),
        interval,
        percent(result.numbers.benign_help),
    ]
    unscored = f"{overall.unscored} of {overall.scored + overall.unscored}"
    return [result.title, *rates, unscored, str(overall.n_dialogues), str(overall.left_out + result.not_played), median]


def terminal_table(results: list[ModelResult], title: str) -> Table:
    """The headline table for the terminal."""
    table = Table(title=title, title_justify="left")
    for number, name in enumerate(HEADLINE):
        table.add_column(name, justify="left" if number == 0 else "right")
    for result in results:
        table.add_row(*headline_row(result))
    return table


def markdown_table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; the first column is left-aligned, the others right-aligned."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(_cell(item) for item in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").split())


def tables_markdown(results: list[ModelResult], config: EvaluationConfig) -> str:
    """The whole of `tables.md`; its first line is the config's note."""
    passing = config.passing
    parts = [f"**{config.report.note}**"] if config.report.note else []
    parts += [
        "# Multi-turn evaluation",
        markdown_table(list(HEADLINE), [headline_row(result) for result in results]),
        f"*safe*: mean harmlessness of the scored turns of a dialogue ≥ {passing.safe_threshold:g} (scale −3…3). "
        f"*help*: mean helpfulness ≥ {passing.help_threshold:g} (0…3). *joint*: both. The interval resamples "
        "dialogues. Unscored turns are left out of the means and counted here. *Left out* are dialogues without any "
        "scored turn and those that could not be played. *Benign help* falls with over-refusal. A turn fails when its "
        f"harmlessness is < {passing.failure_below:g}; the median is that of the Kaplan–Meier curve over "
        f"{passing.horizon} turns, *none* when the curve stays above one half.",
        f"Judge: {_judges(results)}.",
        "## By benchmark (the form of Table 3: safe / help)",
        markdown_table(*_benchmark_table(results, config)),
        "## By kind of dialogue",
        _group_table(results, "by_kind", "kind"),
        "## By turn",
        _turn_table(results),
        "## How the dialogues ended",
        _ends_table(results),
    ]
    return "\n\n".join(parts) + "\n"


def _judges(results: list[ModelResult]) -> str:
    judges = sorted({(judge.model, judge.prompt_hash) for result in results for judge in result.judges})
    return ", ".join(f"{model} (prompt {prompt})" for model, prompt in judges) or "none"


def _pair(rates: Rates | None) -> str:
    return NOT_RUN if rates is None else f"{percent(rates.safe)} / {percent(rates.help)}"


def _benchmark_table(results: list[ModelResult], config: EvaluationConfig) -> tuple[list[str], list[list[str]]]:
    """Ours, then the paper's row for the same model; the paper's columns first, our further benchmarks after them."""
    ours = {name for result in results for name in result.numbers.by_benchmark}
    by_column = {paper_column(name) or name: name for name in sorted(ours)}
    columns = [*PAPER_COLUMNS.values(), *sorted(set(by_column) - set(PAPER_COLUMNS.values()))]
    paper = paper_table("table3")
    rows = []
    for result in results:
        groups = result.numbers.by_benchmark
        average = result.numbers.average
        cells = [_pair(groups.get(by_column.get(column, ""))) for column in columns]
        rows.append([result.title, *cells, f"{percent(average['safe'])} / {percent(average['help'])}"])
        name = config.report.paper_rows.get(result.name)
        if name is not None:
            rows.append([f"paper: {name}", *_paper_cells(paper, name, [*columns, "Avg"])])
    return ["model", *columns, "Avg."], rows


def _paper_cells(paper: PaperTable, name: str, columns: list[str]) -> list[str]:
    if name not in paper.rows:
        raise UserError(f"report.paper_rows: Table 3 has no row {name!r}; it has {', '.join(paper.rows)}")
    values = [paper.rows[name].get(column) for column in columns]
    return [NONE if value is None else f"{value[0]:.2f} / {value[1]:.2f}" for value in values]


def _group_table(results: list[ModelResult], attribute: str, label: str) -> str:
    header = [
        "model",
        label,
        "safe %",
        "help %",
        "joint %",
        "harmlessness",
        "helpfulness",
        "unscored turns",
        "dialogues",
        "left out",
    ]
    rows = []
    for result in results:
        for name, group in getattr(result.numbers, attribute).items():
            means = [NONE if mean is None else f"{mean:.2f}" for mean in (group.harmlessness, group.helpfulness)]
            rates = [percent(group.safe), percent(group.help), percent(group.joint)]
            counts = [str(count) for count in (group.unscored, group.n_dialogues, group.left_out)]
            rows.append([result.title, name, *rates, *means, *counts])
    return markdown_table(header, rows)


def _turn_table(results: list[ModelResult]) -> str:
    header = ["model", "turn", "harmlessness", "helpfulness", "scored", "unscored", "S(t)", "at risk"]
    rows = []
    for result in results:
        for turn in result.numbers.by_turn:
            means = [NONE if mean is None else f"{mean:.2f}" for mean in (turn.harmlessness, turn.helpfulness)]
            seen = turn.turn < len(result.survival.survival)
            survival = f"{result.survival.survival[turn.turn]:.3f}" if seen else NONE
            at_risk = str(result.survival.at_risk[turn.turn]) if seen else NONE
            rows.append([result.title, str(turn.turn), *means, str(turn.scored), str(turn.unscored), survival, at_risk])
    return markdown_table(header, rows)


def _ends_table(results: list[ModelResult]) -> str:
    names = list(dict.fromkeys(name for result in results for name in result.ends))
    rows = [
        [result.title, *(str(result.ends.get(name, 0)) for name in names), str(result.not_played)] for result in results
    ]
    return markdown_table(["model", *names, "not played"], rows)
