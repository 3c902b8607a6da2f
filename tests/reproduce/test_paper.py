"""The paper's cells: every printed row has one, every command's config loads, one report stands next to the paper."""

import shlex
from pathlib import Path

import pytest

from evaluation.config import EvaluationConfig
from evaluation.multi_turn.inference import ANSWERS
from evaluation.multi_turn.judge import VERDICTS
from evaluation.multi_turn.verdicts import JudgeIdentity, VerdictRow
from evaluation.report.paper import paper_tables, system
from reproduce import paper, run
from reproduce.forecast import Work, forecast
from reproduce.paper_report import write_report
from reproduce.runner import Report
from reproduce.settings import PaperSettings
from safer_steer.config import load_config
from safer_steer.errors import UserError
from safer_steer.rubric import JudgeScores
from safer_steer.store import write_jsonl

CONFIG = "configs/reproduce/paper.yaml"
ENDPOINT = {"endpoint": {"model": "m", "base_url": "https://host.example/v1"}, "sampling": {"temperature": 0.2}}


@pytest.fixture
def settings():
    """With every baseline named."""
    found = load_config(PaperSettings, CONFIG)
    return found.model_copy(update={"baselines": dict.fromkeys(found.baselines, ENDPOINT)})


def test_a_baseline_is_named_by_its_environment_variable(monkeypatch, tmp_path):
    assert not any("spa-vl" in name for name in paper.cells(load_config(PaperSettings, CONFIG)))
    monkeypatch.setenv("SPA_VL_7B", "models/spa_vl")
    own = tmp_path / "own.yaml"
    row = "  3B TIS: {endpoint: {model: m, base_url: 'https://h.example/v1'}}"
    own.write_text(f"base: {Path(CONFIG).resolve()}\nbaselines:\n{row}\n", encoding="utf-8")
    found = load_config(PaperSettings, own)
    planned = {step.name: step for step in paper.steps(found, Path("r"), paper.printed(paper.cells(found)))}
    models = {}
    for name in ("7b/evaluate_spa-vl", "3b/evaluate_tis"):
        config = load_config(EvaluationConfig, planned[name].command[2], list(planned[name].command[3:]))
        models[name] = config.models["model"]
    assert models["7b/evaluate_spa-vl"].checkpoint == "models/spa_vl"
    assert models["3b/evaluate_tis"].endpoint.model == "m"
    assert "3b/evaluate_spa-vl" not in planned


def test_every_printed_row_is_a_cell(settings):
    rows = {row for name, table in paper_tables().items() if name != "table1" for row in table.rows}
    cells = paper.printed(paper.cells(settings))
    assert {system(cell.row) for cell in cells.values()} == {system(row) for row in rows}
    assert {cell.row for cell in cells.values() if cell.single_turn} == set(paper_tables()["table2"].rows)


def test_shared_steps_are_there_once_and_every_need_before(settings):
    planned = paper.steps(settings, Path("r"), paper.printed(paper.cells(settings)))
    names = [step.name for step in planned]
    assert len(names) == len(set(names))
    for index, step in enumerate(planned):
        assert set(step.needs) <= set(names[:index]), step.name
    commands = {step.name: step.command for step in planned}
    assert "ablation=no_tcsr" in commands["3b/grpo_no_tcsr"]
    assert "safer_steer.data.source=r/steer/data/steer_rl.jsonl" in commands["7b/grpo"]
    assert "7b/grpo_no_tcsr" not in names, "the paper prints the ablations for 3B alone"
    only = {"7b/grpo_no_tcsr": paper.cells(settings)["7b/grpo_no_tcsr"]}
    assert [step.name for step in paper.steps(settings, Path("r"), only)] == [
        "shared/data", "7b/sft", "7b/grpo_no_tcsr", "7b/evaluate_grpo_no_tcsr",
    ]  # fmt: skip


def test_the_evaluations_are_of_their_models(settings):
    planned = {step.name: step for step in paper.steps(settings, Path("r"), paper.printed(paper.cells(settings)))}

    def config(name):
        return load_config(EvaluationConfig, planned[name].command[2], list(planned[name].command[3:]))

    tuned, baseline = config("7b/evaluate_grpo"), config("7b/evaluate_tis")
    assert tuned.models["model"].checkpoint == "r/qwen2_5_vl_7b/grpo/checkpoint"
    assert tuned.report.paper_rows == {"model": "7B SaFeR-Steer"}
    assert len(tuned.benchmarks) == 2
    assert list(baseline.models) == ["model"]
    assert (baseline.models["model"].checkpoint, baseline.sampling_of("model").temperature) == (None, 0.2)
    assert len(config("3b/evaluate_grpo_no_tcsr").benchmarks) == 1, "Table 2 has no such row"


def test_the_report_has_ours_under_the_printed_numbers(settings, tmp_path):
    known = paper.cells(settings)
    assert write_report(settings, tmp_path, known) is None
    judge = JudgeIdentity(model="hand", prompt_hash="0" * 16, version="1" * 16)
    for name, score in (("3b/grpo", 3), ("3b/grpo_no_tcsr", 0)):
        folder = paper.output(settings, tmp_path, known[name]) / "model"
        rows = []
        for benchmark in ("beaver", "mmsafe", "vls", "spa", "dys"):
            scores = JudgeScores(harmlessness=score, helpfulness=3)
            facts = {"dialogue": benchmark, "benchmark": benchmark, "kind": "red_team", "turn": 1, "judge": judge}
            rows.append(VerdictRow(id=f"{benchmark}:1", scores=scores, unscored=None, **facts))
        write_jsonl(folder / VERDICTS, rows)
        write_jsonl(folder / ANSWERS, [])
        (folder.parent / "summary.json").write_text("{}", encoding="utf-8")
    folder = write_report(settings, tmp_path, known)
    assert folder == tmp_path / "report"
    assert (folder / "survival.png").is_file()
    text = (folder / "tables.md").read_text(encoding="utf-8")
    table8 = text[text.index("## Table 8") :].splitlines()
    at = next(number for number, line in enumerate(table8) if line.startswith("| 3B no TCSR "))
    assert "| 47.19 / 68.97 |" in table8[at]
    assert table8[at + 1].endswith("| 0.00 / 100.00 |")


def test_the_dry_run_prints_commands_hours_calls_and_cost(monkeypatch, capsys, tmp_path):
    class Checked:
        def __init__(self, steps, *_):
            self.steps = steps

        async def run(self):
            return Report(now=[step.name for step in self.steps])

    monkeypatch.setattr(run, "Runner", Checked)
    assert run.main(["paper", "--dry-run", "--root", str(tmp_path), "--only", "3b/grpo,7b/base"]) == 0
    said = capsys.readouterr().out
    assert "says how): 3B TIS" in said
    for word in (
        "3b/grpo: bash scripts/run_grpo.sh",
        "GPU hours",
        "calls of gpt-5-nano",
        "about $",
        "together, of what",
    ):
        assert word in said
    assert shlex.split(next(line for line in said.splitlines() if line.startswith("7b/evaluate_base")))[1] == "bash"
    assert run.main(["paper", "--only", "3b/nonsense"]) == 2
    assert "choose from 3b/base" in capsys.readouterr().err


def test_a_forecast_grows_with_the_model_and_shrinks_with_the_turns():
    small, large = forecast(Work("sft", 3.75)), forecast(Work("sft", 7.5))
    assert large.gpu_hours == pytest.approx(2 * small.gpu_hours)
    assert forecast(Work("grpo", 3.75, last=True)).gpu_hours < forecast(Work("grpo", 3.75)).gpu_hours / 4
    assert forecast(Work("evaluation")).gpu_hours == 0, "an endpoint needs none of our GPUs"
    assert forecast(Work("evaluation")).usd > 0


def test_a_wrong_name_of_a_key_is_refused(tmp_path):
    wrong = tmp_path / "paper.yaml"
    wrong.write_text(Path(CONFIG).read_text(encoding="utf-8").replace("baselines:", "baseline:"), encoding="utf-8")
    with pytest.raises(UserError, match="baseline: unknown key"):
        load_config(PaperSettings, wrong)
