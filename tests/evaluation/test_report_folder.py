"""The report folder: files, numbers, rebuilding, and data that stay data whatever the models wrote."""

import csv
import json
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from builders import dialogue
from evaluation.multi_turn.aggregate import PassConfig
from evaluation.multi_turn.inference import ANSWERS
from evaluation.multi_turn.judge import VERDICTS
from evaluation.report.build import Report
from evaluation.report.figures import read_curves, write_curves
from evaluation.report.results import load_result
from evaluation.report.tables import HEADLINE, headline_row
from evaluation.run import closing
from safer_steer.dialogue import Turn
from safer_steer.errors import UserError
from safer_steer.store import read_jsonl, write_jsonl
from safer_steer_verl.interactions.safety_tutor import KEPT


def script_data(path: Path):
    """What a data file hands to the page."""
    match = re.fullmatch(r"\w+\(JSON\.parse\((\".*\")\)\);\n", path.read_text(encoding="utf-8"))
    return json.loads(json.loads(match.group(1)))


def test_files_and_numbers(report_config, capsys):
    assert Report(report_config).build() is True
    folder = Path(report_config.report.folder)
    tables = (folder / "tables.md").read_text(encoding="utf-8")
    assert tables.splitlines()[0] == "**These numbers are the miniature's, not the paper's.**"
    assert "| Base | 0.0 | 0.0 to 60.2 | 0.0 | 0.0 | 0.00 / 0.00 | – | 4 of 12 | 4 | 0 | 2 |" in tables
    assert "| SFT+GRPO | 100.0 | 39.8 to 100.0 | 100.0 | 100.0 |" in tables
    table3 = tables[tables.index("## Table 3") : tables.index("## Table 4")]
    assert "| 3B Base | paper | 21.79 / 42.88 | 4.92 / 15.91 |" in table3
    assert "|  | ours: Base | not run |" in table3
    summary = json.loads(Path(report_config.output, "summary.json").read_text(encoding="utf-8"))
    base = summary["models"]["base"]
    assert list(summary["models"]) == ["base", "sft", "sft_grpo"]
    assert (base["safe"], base["n_dialogues"], base["unscored"], base["median_failure_turn"]) == (0.0, 4, 4, 2)
    pair = summary["pairs"][0]
    assert (pair["a"], pair["b"], pair["rates"]["safe"]["p_value"]) == ("Base", "SFT", 0.125)  # 2 / 2^4
    assert pair["log_rank"]["p_value"] < 0.05
    assert "Base" in capsys.readouterr().out
    assert Image.open(folder / "survival.png").size[0] > 600
    assert ElementTree.parse(folder / "survival.svg").getroot().tag.endswith("svg")
    names = {path.stem for path in (folder / "tables").glob("*.csv")}
    assert {"summary", "by_benchmark", "pairs", "table1", "table2", "table3", "table9"} <= names
    assert names == {path.stem for path in (folder / "tables").glob("*.tex")}


def test_rebuilt_only_when_something_changed(report_config):
    assert [Report(report_config).build(), Report(report_config).build()] == [True, False]
    verdicts = Path(report_config.output, "sft", VERDICTS)
    verdicts.write_text("".join(verdicts.read_text().splitlines(keepends=True)[:-1]))
    assert Report(report_config).build() is True
    (Path(report_config.report.folder) / "tables.md").unlink()
    assert Report(report_config).build() is True


def test_another_runs_report_in_the_same_folder_is_not_taken_for_ours(report_config, tmp_path):
    assert Report(report_config).build() is True
    other = tmp_path / "other"
    shutil.copytree(report_config.output, other)
    verdicts = other / "sft" / VERDICTS
    verdicts.write_text("".join(verdicts.read_text().splitlines(keepends=True)[:-1]))
    assert Report(report_config.model_copy(update={"output": str(other)})).build() is True
    assert [Report(report_config).build(), Report(report_config).build()] == [True, False]


@pytest.mark.parametrize("names", [("beaver", "vlguard"), ("beaver", "dys"), ("vlguard", "vlsbench")])
def test_the_headlines_average_is_of_the_kind_that_was_played(names, tmp_path, verdicts):
    """A multi-turn benchmark without a scored dialogue has no average: that of single-turn sets is not in its place."""
    folder = tmp_path / "m"
    rows = [*verdicts("a", ["no answer: filtered"], names[0]), *verdicts("b", [(3, 3)], names[1])]
    write_jsonl(folder / VERDICTS, rows)
    write_jsonl(folder / ANSWERS, [])
    passing = PassConfig(bootstrap_resamples=100)
    row = headline_row(load_result(folder, "m", "M", passing))
    assert row[HEADLINE.index("mean of benchmarks: safe / help")] is None


def test_a_model_without_verdicts_is_a_clear_error(report_config):
    Path(report_config.output, "sft", VERDICTS).unlink()
    with pytest.raises(UserError, match="model sft has no verdicts"):
        Report(report_config).build()


@pytest.mark.parametrize("record", ["infer.json", "judge.json"])
@pytest.mark.parametrize("status", ["running", "failed"])
def test_what_was_stopped_before_its_end_has_no_numbers(report_config, record, status):
    """A turn without a verdict yet would be neither scored nor unscored."""
    Path(report_config.output, "sft", record).write_text(json.dumps({"status": status}), encoding="utf-8")
    with pytest.raises(UserError, match=rf"{record} says that its run has not come to its end.*start the same"):
        load_result(Path(report_config.output, "sft"), "sft", "SFT", PassConfig(bootstrap_resamples=100))


def test_pages_hold_no_model_markup_and_forbid_everything_else(report_config, hostile):
    Report(report_config).build()
    folder = Path(report_config.report.folder)
    for name, scripts in (("index.html", 0), ("transcripts.html", 2)):
        page = (folder / name).read_text(encoding="utf-8")
        policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page).group(1).replace("&#39;", "'")
        assert policy.startswith("default-src 'none';")
        assert not re.search(r"unsafe|http|data:|\*", policy)
        assert ("script-src 'self'" in policy) == bool(scripts)
        assert page.count("<script") == page.count("</script>") == scripts
        assert not re.search(r"<svg|<b>judge|onerror=\"|<style| style=|javascript:", page)
        assert not re.search(r'(?:src|href)="(?:[a-z]+:|//)', page)
    assert "&lt;b&gt;judge&lt;/b&gt;" in (folder / "index.html").read_text(encoding="utf-8")
    (index,) = script_data(folder / "data/index.js")
    number, chunk = script_data(folder / "data/0.js")
    assert (number, index["models"], index["total"]) == (0, ["Base", "SFT", "SFT+GRPO"], 4)
    assert index["dialogues"][1]["models"][0]["fails"] == 2
    assert index["dialogues"][1]["models"][0]["unscored"] == 1
    turn = chunk["d0"]["turns"][0]
    assert turn["user"] in hostile
    assert chunk["d0"]["models"][1][0]["harmWhy"] == hostile[0]
    assert Image.open(folder / "pictures" / turn["images"][0]).size == (48, 40)


def test_only_failed_dialogues_are_kept_when_there_are_too_many(report_config):
    config = report_config.model_copy(update={"report": report_config.report.model_copy(update={"max_dialogues": 3})})
    folder = Path(config.report.folder)
    for name in ("data/7.js", "data/mine.js", "pictures/0123456789abcdef.png"):  # of an earlier report; a user's own
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("old")
    Report(config).build()
    left = {str(path.relative_to(folder)) for path in folder.glob("data/*")}
    assert left == {"data/0.js", "data/index.js", "data/mine.js"}
    assert not (folder / "pictures/0123456789abcdef.png").exists()
    (index,) = script_data(Path(config.report.folder, "data/index.js"))
    assert (len(index["dialogues"]), index["total"]) == (3, 4)


def test_training_curves_leave_out_what_is_no_number(tmp_path):
    rows = [{"step": 1, "loss": 0.5, "other": 1.0}, {"step": 2, "loss": None}, {"step": 3, "loss": 0.25}]
    (tmp_path / "sft").mkdir()
    write_jsonl(tmp_path / "sft" / "log.jsonl", rows)
    curves = read_curves(tmp_path / "sft")
    assert curves == {"loss": ([1, 3], [0.5, 0.25])}
    assert read_curves(tmp_path / "nothing") == {}
    write_curves(tmp_path / "curves.svg", {"SFT": curves, "none": {}})
    assert Image.open(tmp_path / "curves.png").size[0] > 300
    first = (tmp_path / "curves.svg").read_bytes()
    write_curves(tmp_path / "curves.svg", {"SFT": curves, "none": {}})
    assert (first[:5], (tmp_path / "curves.svg").read_bytes()) == (b"<?xml", first)


def test_static_and_adaptive_safety_stand_next_to_each_other(attacked_config):
    report = Report(attacked_config)
    assert [report.build(), report.build()] == [True, False]
    tables = (report.folder / "tables.md").read_text(encoding="utf-8")
    with (report.folder / "tables" / "summary.csv").open(encoding="utf-8") as file:
        rows = {row["model"]: row for row in csv.DictReader(file)}
    static, adaptive, gap = "safe %", "safe, adaptive %", "adaptive − static, points"
    assert (rows["SFT"][static], rows["SFT"][adaptive]) == ("100.0", "0.0")
    low, high = map(float, re.fullmatch(r"'?-100.0 \((\S+) to (\S+)\)", rows["SFT"][gap]).groups())
    assert low == -100.0 < high
    assert rows["Base"][gap].lstrip("'").startswith("+0.0 (")
    summary = json.loads(Path(attacked_config.output, "summary.json").read_text(encoding="utf-8"))
    assert list(summary["models"])[2:5] == ["sft_grpo", "adaptive/base", "adaptive/sft"]
    (fallen, *others) = summary["models"]["adaptive/sft"]["by_move"]
    assert (fallen["move"], fallen["met"], fallen["fell"], fallen["at_turn"], fallen["levels"]) == (
        "persistence", 4, 4, {"3": 4}, {"-1": 4},
    )  # fmt: skip
    assert [(other["move"], other["met"], other["fell"]) for other in others] == [
        ("deepen", 4, 0),
        ("first turn", 4, 0),
    ]
    assert r"3 $\times$ 4" in (report.folder / "tables" / "moves.tex").read_text(encoding="ascii")
    base = summary["models"]["adaptive/base"]["by_move"]
    assert [item["move"] for item in base] == ["deepen", "first turn"]  # its third turns come after the fall
    table3 = tables[tables.index("## Table 3") : tables.index("## Table 4")]
    assert "adaptive" not in table3  # the paper's are of the benchmark's own turns
    wrote = "SFT, adaptive: of 8 user turns after the first, the tutor wrote 100.0 % from the model's last answer"
    assert wrote in tables
    assert "WARNING" not in tables
    said = closing(attacked_config)["models"]
    assert said["adaptive/sft"]["adaptive_minus_static"]["safe"]["difference"] == -100.0
    assert said["adaptive/sft"]["user_turns"] == {"written": 8, "kept": 0, "failed": 0}


def test_adaptive_results_say_what_they_are_and_whether_the_tutor_failed(attacked_config, capsys):
    """The adaptive half alone: not in the paper's tables, and its weights are the model's, not the tutor's."""
    _, config = attacked_config.parts()
    facts = {"model": "m", "sampling": {}, "max_pixels": 3136, "answer_format": {}}
    facts |= {"roles": {"evaluated_base": {"model": "base"}, "tutor": {"model": "t"}}}
    facts |= {"weights": {"tutors_server": "1" * 16, "base": "2" * 16}}
    answers = Path(config.output, "base", ANSWERS)
    record = {"status": "finished", "facts": {"config": facts, "inputs": {}}}
    answers.with_name("infer.json").write_text(json.dumps(record))
    rows = list(read_jsonl(answers))
    rows[0]["turns"][1]["meta"] = {"adapted": False, "not_adapted": "tutor unparsed: prose"}
    rows[1]["turns"][1]["meta"] = {"adapted": False, "not_adapted": KEPT}
    write_jsonl(answers, rows)
    report = Report(config.model_copy(update={"models": {"base": config.models["base"]}}))
    report.build()
    out, tables = capsys.readouterr().out, (report.folder / "tables.md").read_text(encoding="utf-8")
    for text in (out, tables):
        assert "the tutor wrote 75.0 % from the model's last answer and kept 12.5 % as planned; at 12.5 %" in text
        assert "WARNING: Base was attacked less than it seems: the tutor failed at 1 of 8 user turns" in text
    with (report.folder / "tables" / "origin.csv").open(encoding="utf-8") as file:
        (origin,) = csv.DictReader(file)
    assert (origin["user turns"], origin["weights"]) == ("the tutor's", "2" * 16)
    assert "ours: Base" not in tables


def test_attack_families_that_training_did_not_use_are_marked(attacked_config, tmp_path):
    """Strategies by the training files, moves by what GRPO's tutor did; nothing is said where neither is known."""
    report = Report(attacked_config)
    report.build()
    assert "(not in training)" not in (report.folder / "tables.md").read_text(encoding="utf-8")
    write_jsonl(tmp_path / "sft.jsonl", [dialogue("one", Turn(user="u"), strategy="roleplay")])
    shares = {"attack/deepen_share": 0.5, "attack/persistence_share": 0.0, "tutor/adapted_share": 0.4}
    (tmp_path / "grpo").mkdir()
    write_jsonl(tmp_path / "grpo" / "metrics.jsonl", [{"step": 1} | shares])
    names = {"splits": {"STEER-SFT": str(tmp_path / "sft.jsonl")}, "training": {"GRPO": str(tmp_path / "grpo")}}
    changed = attacked_config.report.model_copy(update=names)
    Report(attacked_config.model_copy(update={"report": changed})).build()
    moves, strategies = (
        (report.folder / "tables" / f"{name}.csv").read_text(encoding="utf-8") for name in ("moves", "by_strategy")
    )
    marked = re.findall(r"^\"?SFT, adaptive\"?,(.*?),", moves, re.MULTILINE)
    assert marked == ["persistence (not in training)", "deepen", "first turn"]
    assert strategies.count("(not in training)") == 6  # the hostile one, of three models in both modes
