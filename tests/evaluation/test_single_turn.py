"""Single-turn benchmarks out of seeds, and their report."""

import csv

import pytest
from PIL import Image

from data_construction.seeds import SEEDS, SeedRow
from evaluation.benchmarks import picture_paths, read_benchmarks
from evaluation.config import EvaluationConfig
from evaluation.multi_turn.inference import ANSWERS
from evaluation.multi_turn.judge import VERDICTS
from evaluation.report.build import Report
from evaluation.run import closing
from evaluation.single_turn.prepare import prepare
from safer_steer.config import load_config
from safer_steer.dialogue import Seed
from safer_steer.images import ImageStore
from safer_steer.store import read_jsonl, write_jsonl


@pytest.fixture
def seeds(tmp_path):
    """Seeds as data construction writes them."""
    picture = ImageStore(tmp_path / "data").put(Image.new("RGB", (40, 40), "red"))
    rows = [
        Seed(id="1/safe", source="vlguard", image=picture, question="q", meta={"kind": "safe"}),
        Seed(id="1/unsafe", source="vlguard", image=picture, question="q", meta={"harmful_category": "privacy"}),
        Seed(id="7", source="vlsbench", image=None, question="r", meta={"category": "Violent"}),
    ]
    kinds = ["benign", "red_team"]
    rows = [
        SeedRow(id=f"o/{seed.id}", origin="o", split="bench", benchmark="b", kinds=kinds, seed=seed) for seed in rows
    ]
    write_jsonl(tmp_path / "data" / SEEDS, rows)
    return tmp_path / "data" / SEEDS


def test_seeds_become_benchmarks_of_one_turn(seeds, tmp_path):
    output = tmp_path / "single_turn"
    assert prepare([seeds], output).rows == {"vlguard": 2, "vlsbench": 1}
    rows = {item.dialogue.meta["seed"]: item for item in read_benchmarks([str(output / "*.jsonl")])}
    assert [rows[key].dialogue.kind for key in ("1/safe", "1/unsafe", "7")] == ["benign", "red_team", "red_team"]
    assert rows["1/unsafe"].dialogue.meta["category"] == "privacy"
    assert picture_paths(rows["1/safe"].dialogue, rows["1/safe"].folder)[0][0].is_file()
    assert rows["7"].dialogue.images == []
    first = (output / "vlguard.jsonl").read_bytes()
    assert prepare([seeds], output, limit=1).rows == {"vlguard": 1, "vlsbench": 1}
    assert first.startswith((output / "vlguard.jsonl").read_bytes())


def test_plain_seeds_give_the_same_benchmarks_and_a_broken_line_is_named(seeds, tmp_path):
    prepare([seeds], tmp_path / "nested")
    plain = seeds.with_name("plain.jsonl")
    write_jsonl(plain, [row.seed for row in read_jsonl(seeds, SeedRow)])
    prepare([plain], tmp_path / "plain")
    for name in ("vlguard.jsonl", "vlsbench.jsonl"):
        assert (tmp_path / "plain" / name).read_bytes() == (tmp_path / "nested" / name).read_bytes()
    seeds.write_bytes(seeds.read_bytes() + b'{"id": "o/8", "seed": {"id": "8"}}\n')
    assert [row.id for row in prepare([seeds], tmp_path / "nested").bad] == ["seeds.jsonl:4"]
    assert (tmp_path / "plain" / name).read_bytes() == (tmp_path / "nested" / name).read_bytes()


def test_report_of_single_turn_sets_alone(tmp_path, verdicts):
    config = load_config(EvaluationConfig, "configs/evaluation/single_turn.yaml", [f"root={tmp_path}"])
    config = config.model_copy(update={"models": {"base": config.models["base"]}})
    folder = tmp_path / "evaluation" / "base"
    rows, answers = [], []
    for name, scores in (("beavertails_v", (3, 3)), ("mm_safety", (3, 2)), ("spa_vl", (2, 3)), ("vlguard", (3, 3))):
        rows += verdicts(name, [scores], name, "benign", category="c")
        turn = {"user": "u", "assistant": "a"}
        meta = {"benchmark": name, "end": "complete"}
        answer = {"id": name, "source": "s", "kind": "benign", "strategy": None, "images": [], "turns": [turn]}
        answers.append(answer | {"meta": meta})
    write_jsonl(folder / VERDICTS, rows)
    write_jsonl(folder / ANSWERS, answers)
    report = tmp_path / "evaluation/report"
    report.mkdir()
    (report / "survival.png").write_text("of an earlier report")
    assert [Report(config).build(), Report(config).build()] == [True, False]
    with (report / "tables/summary.csv").open(encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert row["median turn of first failure"] == "–"
    assert not list(report.rglob("survival.*")), "nobody had a second turn"
    assert 'id="survival"' not in (report / "index.html").read_text(encoding="utf-8")
    average = closing(config)["models"]["base"]["average"]
    assert (average["safe"], average["help"]) == (75.0, 75.0)
    tables = (tmp_path / "evaluation/report/tables.md").read_text(encoding="utf-8")
    table2 = tables[tables.index("## Table 2") : tables.index("## Table 3")].splitlines()
    ours = next(line for line in table2 if "ours: " in line)
    cells = [cell.strip() for cell in ours.split("|")[3:-1]]
    assert cells == ["100.00 / 100.00", "100.00 / 0.00", "0.00 / 100.00", "100.00 / 100.00", "not run", "not run"]
