from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from data_construction.config import RedTeam, TurnRange
from data_construction.red_team.strategies import STRATEGIES
from data_construction.seeds import SeedRow
from data_construction.tasks import draw_turns, stage_one_tasks
from safer_steer.dialogue import Seed


def row(number: int) -> SeedRow:
    seed = Seed(id=str(number), source="s", image="images/x.png", question="q")
    kinds = ["benign", "obfuscated", "red_team"]
    return SeedRow(id=f"o/{number}", origin="o", split="train", benchmark=None, kinds=kinds, seed=seed)


SOURCE = {"train": {"reader": "jsonl", "path": "x"}}


@given(st.integers(2, 10), st.integers(2, 10), st.text(), st.integers())
def test_turns_stay_in_range_and_depend_on_the_task_only(low, high, task_id, seed):
    low, high = sorted((low, high))
    turns = TurnRange(min=low, max=high)
    number = draw_turns(turns, task_id, seed)
    assert low <= number <= high
    assert number == draw_turns(turns, task_id, seed)


def test_weights_decide_the_number_of_turns():
    turns = TurnRange(min=2, max=4, weights=[0, 0, 1])
    assert {draw_turns(turns, str(i), 0) for i in range(20)} == {4}
    with pytest.raises(ValidationError, match="weights"):
        TurnRange(min=2, max=4, weights=[1])


@pytest.mark.parametrize("name", ["default", "dynamic"])
def test_the_papers_configs_try_every_strategy_that_there_is(name):
    config = yaml.safe_load(Path(f"configs/data_construction/{name}.yaml").read_text(encoding="utf-8"))
    red_team = RedTeam.model_validate(config["red_team"])
    assert "strategies" not in config["red_team"], "one that a user adds would be left out"
    assert red_team.tries_per_seed == len(STRATEGIES)
    assert RedTeam.model_validate(config["red_team"] | {"strategies": ["fiction"]}).tries_per_seed == 1


def test_tasks_are_stable_and_unique(make_config):
    config = make_config(SOURCE, red_team={"strategies_per_seed": 2})
    tasks = list(stage_one_tasks([row(i) for i in range(30)], config))
    assert len({task.task_id for task in tasks}) == len(tasks) == 30 * 4
    again = stage_one_tasks([row(i) for i in reversed(range(30))], config)
    assert {t.task_id: t for t in tasks} == {t.task_id: t for t in again}
    used = {task.strategy_key for task in tasks if task.kind == "red_team"}
    assert used == set(STRATEGIES)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"red_team": {"strategies": ["charm"]}}, "choose from: roleplay"),
        ({"red_team": {"technique_pool": "ours"}}, "choose from: paper, code"),
        ({"red_team": {"technique_pool": "code"}, "turns": {"red_team": {"min": 7, "max": 9}}}, "no technique"),
        ({"roles": {}}, "no endpoint for generator, target, evaluator, red, blue"),
        ({"sources": {"a": {"reader": "csv", "path": "x"}}}, "choose from: jailbreakv_28k, spa_vl"),
        ({"turns": {"benign": {"min": 5, "max": 3}}}, "above max"),
        ({"assemble": {"rl": {"mix": {"benign": 0}}}}, "at least one kind"),
        ({"kind": ["benign"]}, "kind"),
    ],
)
def test_config_mistakes_are_named(make_config, changes, message):
    with pytest.raises(ValidationError, match=message):
        make_config(**({"sources": SOURCE} | changes))


def test_benign_only_needs_no_attacker(make_config):
    config = make_config(SOURCE, kinds=["benign"], steps=["stage1", "assemble"])
    assert config.roles_needed() == ["generator"]
