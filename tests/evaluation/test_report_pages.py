"""The report: tables, `summary.json`, and a transcript page that stays safe whatever the models wrote."""

import base64
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from evaluation.config import EvaluationConfig
from evaluation.multi_turn.inference import ANSWERS
from evaluation.multi_turn.judge import VERDICTS
from evaluation.multi_turn.survival import Observation, kaplan_meier
from evaluation.multi_turn.verdicts import JudgeIdentity, VerdictRow
from evaluation.report.build import Report
from evaluation.report.figure import survival_png
from evaluation.report.tables import paper_table
from evaluation.report.transcripts import script_json
from safer_steer.config import load_config
from safer_steer.dialogue import Dialogue, Turn
from safer_steer.errors import UserError
from safer_steer.images import ImageStore
from safer_steer.store import write_jsonl
from safer_steer.verdict import JudgeScores

HOSTILE = (
    "</script><script>document.title='hacked'</script>",
    "<img src=x onerror=\"document.title='hacked'\">",
    "<!--<script>\u2028alert(1)\u2029</ScRiPt >",
    "'\"><svg/onload=document.title='hacked'>{{ 7*7 }} &lt;b&gt; \U0001f600",
)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture
def config(tmp_path) -> EvaluationConfig:
    """The miniature's config with hand-made answers and verdicts of three models."""
    root = tmp_path / "run"
    config = load_config(EvaluationConfig, "configs/evaluation/miniature.yaml", [f"root={root}"])
    judge = JudgeIdentity(model="<b>judge</b>", prompt_hash="1" * 16)
    for model, scores in (
        ("base", [(3, 3), (-3, 0), None]),
        ("sft", [(3, 3), (3, 2), (3, 3)]),
        ("sft_grpo", [(3, 3)] * 3),
    ):
        folder = root / "evaluation" / model
        picture = ImageStore(folder).put(Image.new("RGB", (48, 40), "orange"))
        answers, verdicts = [], []
        for number in range(4):
            turns = [Turn(user=HOSTILE[(number + i) % 4], assistant=HOSTILE[(number + i + 1) % 4]) for i in range(3)]
            meta = {"benchmark": "dys" if number else "<script>", "end": "complete", "task": str(number)}
            row = Dialogue(
                id=f"d{number}",
                source="t",
                kind="red_team",
                strategy=HOSTILE[1],
                images=[picture],
                turns=turns,
                meta=meta,
            )
            answers.append(row)
            for turn, score in enumerate(scores, 1):
                given = score and JudgeScores(
                    harmlessness=score[0], helpfulness=score[1], harmlessness_rationale=HOSTILE[0]
                )
                reason = None if score else f"unparsed: {HOSTILE[2]}"
                verdicts.append(
                    VerdictRow(
                        id=f"d{number}:{turn}",
                        dialogue=row.id,
                        benchmark=meta["benchmark"],
                        kind=row.kind,
                        turn=turn,
                        scores=given,
                        unscored=reason,
                        judge=judge,
                    )
                )
        write_jsonl(folder / ANSWERS, answers)
        write_jsonl(folder / VERDICTS, verdicts)
    return config


def test_files_and_numbers(config, capsys):
    assert Report(config).build() is True
    folder = Path(config.report.folder)
    tables = (folder / "tables.md").read_text(encoding="utf-8")
    assert tables.splitlines()[0] == "**These numbers are the miniature's, not the paper's.**"
    assert "| Base | 0.0 | 0.0 | 0.0 | 0.0 – 0.0 | – | 4 of 12 | 4 | 0 | 2 |" in tables
    assert "| SFT+GRPO | 100.0 | 100.0 | 100.0 | 100.0 – 100.0 | – | 0 of 12 | 4 | 0 | none |" in tables
    table3 = tables[tables.index("## By benchmark") : tables.index("## By kind")]
    assert "not run" in table3
    assert "| paper: 3B Base | 21.79 / 42.88 | 4.92 / 15.91 |" in table3
    assert "<script>" not in tables
    summary = json.loads(Path(config.output, "summary.json").read_text(encoding="utf-8"))
    base = summary["models"]["base"]
    wanted = {"safe", "help", "joint", "safe_ci", "n_dialogues", "unscored", "median_failure_turn"}
    assert wanted <= base.keys()
    assert list(summary["models"]) == ["base", "sft", "sft_grpo"]
    assert (base["safe"], base["n_dialogues"], base["unscored"], base["median_failure_turn"]) == (0.0, 4, 4, 2)
    assert summary["models"]["sft"]["help"] == 100.0
    assert summary["models"]["sft"]["median_failure_turn"] is None
    assert "Base" in capsys.readouterr().out
    assert Image.open(folder / "survival.png").size[0] > 600


def test_rebuilt_only_when_something_changed(config):
    assert [Report(config).build(), Report(config).build()] == [True, False]
    verdicts = Path(config.output, "sft", VERDICTS)
    verdicts.write_text("".join(verdicts.read_text().splitlines(keepends=True)[:-1]))
    assert Report(config).build() is True
    (Path(config.report.folder) / "tables.md").unlink()
    assert Report(config).build() is True


def test_a_model_without_verdicts_is_a_clear_error(config):
    Path(config.output, "sft", VERDICTS).unlink()
    with pytest.raises(UserError, match="model sft has no verdicts"):
        Report(config).build()


def test_the_paper_tables_hold_their_averages():
    for name in ("table2", "table3", "table9"):
        table = paper_table(name)
        for row, cells in table.rows.items():
            values = [pair for column, pair in cells.items() if column != "Avg"]
            for index in (0, 1):
                mean = sum(pair[index] for pair in values) / len(values)
                assert mean == pytest.approx(cells["Avg"][index], abs=0.011), f"{name} {row}"


def test_json_cannot_end_its_script_element():
    text = script_json({"x": list(HOSTILE)})
    assert not re.search("[<>&\u2028\u2029]", text)
    assert json.loads(text)["x"] == list(HOSTILE)


def test_the_page_holds_no_model_markup_and_forbids_everything_else(config):
    Report(config).build()
    page = (Path(config.report.folder) / "transcripts.html").read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page).group(1)
    assert "default-src &#39;none&#39;" in policy or "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert page.count("<script") == 2
    assert page.count("</script>") == 2
    assert 'onerror="' not in page
    assert "<svg" not in page
    assert "<b>judge" not in page
    assert not re.search(r'(?:src|href)="(?!data:image/png;base64,)', page)
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL).group(1))
    assert data["models"][0]["dialogues"][0]["turns"][0]["user"] in HOSTILE
    picture = base64.b64decode(data["pictures"][0].partition(",")[2])
    assert Image.open(io.BytesIO(picture)).size == (48, 40)


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium or chrome on the path to open the page with")
def test_the_page_in_a_browser_shows_text_and_runs_nothing(config):
    Report(config).build()
    page = Path(config.report.folder) / "transcripts.html"
    profile = page.parent / "profile"
    command = [
        CHROMIUM,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={profile}",
        "--virtual-time-budget=3000",
    ]
    command += ["--dump-dom", page.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert "<title>SaFeR-Steer: transcripts</title>" in dom
    shown = dom[dom.index("<main>") : dom.index("</main>")]
    assert "first failure" in shown
    assert "&lt;/script&gt;&lt;script&gt;" in shown
    assert "<script" not in shown
    assert "<svg" not in shown
    assert 'onerror="' not in re.sub(r">[^<]*<", "><", shown)
    assert "12 of 12 dialogues" in dom


def test_the_figure_is_drawn_for_a_model_that_never_fails():
    curves = {"A": kaplan_meier([Observation(4, False)] * 3), "B": kaplan_meier([Observation(0, False)])}
    png = survival_png(curves, failure_below=2, horizon=10, note="a note")
    assert Image.open(io.BytesIO(png)).format == "PNG"
