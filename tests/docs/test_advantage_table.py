"""docs/grpo.md's table of advantages on hand-made trajectories is what the code gives."""

from pathlib import Path

import pytest

from safer_steer.markdown import table
from safer_steer.rubric import TurnScores, lock
from safer_steer_verl.utils.advantage import group_advantages
from safer_steer_verl.utils.tcsr import TcsrConfig, trajectory_return, with_missing
from safer_steer_verl.utils.turn_reward import RewardConfig, turn_reward

PAGE = Path(__file__).parents[2] / "docs" / "grpo.md"
DIALOGUES = ((10, 10, 1), (1, 10, 10), (10, 10, 10), (8, 8, 8))  # tutor's safety scores
RULES = ("paper", "raw", "additive", "released", "mean")
LENGTHS = (3, 5, 8, 10)


def rewards(safeties):
    scores = (TurnScores(safety=safety, usefulness=10, faithfulness=10) for safety in safeties)
    return [turn_reward(lock(item), "", RewardConfig()) for item in scores]


def advantages(rule):
    returns = [trajectory_return(rewards(item), TcsrConfig(rule=rule)) for item in DIALOGUES]
    return group_advantages(returns, ["group"] * len(returns))


def late_failure(rule, turns):
    """What a breach in the last turn takes from R, in units of one in the first."""
    config = TcsrConfig(rule=rule)
    good = [10] * (turns - 1)
    whole, first, last = (trajectory_return(rewards(item), config) for item in ([10, *good], [1, *good], [*good, 1]))
    return (whole - last) / (whole - first)


def test_the_printed_form_gives_the_numbers_worked_out_by_hand():
    assert advantages("paper") == pytest.approx([0.225, -0.963, 0.609, 0.129], abs=5e-4)
    assert [late_failure("paper", turns) for turns in (5, 8, 10)] == pytest.approx([0.14, 0.09, 0.07], abs=5e-3)
    cut, badly = rewards((10, 10)), rewards((10, 10, 8))
    config = TcsrConfig(rule="released")
    assert trajectory_return(with_missing(cut, 3), config) < trajectory_return(badly, config)


def test_the_page_has_the_table_that_the_code_gives():
    header = ["rule", *(", ".join(map(str, item)) for item in DIALOGUES), *(f"last / first, T = {n}" for n in LENGTHS)]
    rows = []
    for rule in RULES:
        late = (f"{late_failure(rule, turns):.2f}" for turns in LENGTHS)
        rows.append([f"`{rule}`", *(f"{value:+.3f}" for value in advantages(rule)), *late])
    assert table(header, rows) in PAGE.read_text(encoding="utf-8")
