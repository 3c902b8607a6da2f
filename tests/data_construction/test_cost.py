from pathlib import Path

import pytest

from data_construction.config import DataConfig, TurnRange
from data_construction.cost import candidates, mean_turns, stage_one_loads, stage_two_loads, total
from data_construction.plan import plan
from safer_steer.config import load_config
from safer_steer.llm.prices import load_prices

ROOT = Path(__file__).parents[2]
SOURCE = {"train": {"reader": "jsonl", "path": "nowhere", "limit": 10}}


def test_expected_turns_by_hand():
    assert TurnRange(min=2, max=4).mean() == 3
    assert TurnRange(min=2, max=4, weights=[0, 1, 3]).mean() == 3.75
    assert TurnRange(min=2, max=10).mean(3, 4) == 3.5


def test_expected_turns_of_attacks_follow_their_techniques(make_config):
    config = make_config(SOURCE, turns={"red_team": {"min": 2, "max": 2}}, red_team={"technique_pool": "code"})
    assert mean_turns(config, "red_team") == pytest.approx(2)


def test_loads_by_hand(make_config):
    config = make_config(SOURCE, turns={kind: {"min": 2, "max": 2} for kind in ("benign", "obfuscated", "red_team")})
    loads = stage_one_loads(config, 10, {"red_team": 40})
    assert (loads["target"].calls, loads["evaluator"].calls) == (80, 80)
    # Two prompts with the picture and all turns so far: 1000 + 35, and 1000 + 2 * 35 + 200.
    assert loads["target"].tokens_in == 40 * (1035 + 1270)
    assert loads["target"].tokens_out == 80 * 200
    assert loads["generator"].calls == pytest.approx(
        10.5 + 10 + 42 + 42 + (24 + 40)
    )  # probe, forensics, intent, plan, refusal
    assert "target" not in stage_one_loads(config, 10, {"benign": 10})
    loads_two = stage_two_loads(config, {"benign": 3})
    assert loads_two["blue"].calls == loads_two["red"].calls == 6
    assert loads_two["generator"].calls == pytest.approx(3.6)  # it tells refusals of red: 0.6 of six rewrites
    assert candidates({"benign": 10, "red_team": 40}) == 30
    assert total(loads, loads)["target"].calls == 160


def test_the_papers_plan_has_its_size_and_a_price_for_every_role(monkeypatch):
    monkeypatch.chdir(ROOT)
    config = load_config(DataConfig, "configs/data_construction/default.yaml")
    text = str(plan(config))
    assert "stage 1 at the paper's 115,700 candidates" in text
    assert "?" not in text
    assert 7.9 < mean_turns(config, "obfuscated") < 8.3
    models = {config.roles[role].model for role in config.roles_needed()}
    assert models <= set(load_prices("configs/prices.yaml").models)


def test_the_docs_cost_table_is_what_the_dry_run_prints(monkeypatch):
    monkeypatch.chdir(ROOT)
    printed = str(plan(load_config(DataConfig, "configs/data_construction/default.yaml"))).partition("115,700")[2]
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    table = [line for line in page.splitlines() if line.startswith(("| generator |", "| target |", "| evaluator |"))]
    assert len(table) == 3
    for line in table:
        assert line in printed, "run the dry run of default.yaml again and put its last table into docs/data.md"
