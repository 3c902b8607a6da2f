"""A reward function in a user's file: what it is given, and that a mistake in it is one message, never a score."""

import asyncio
from types import SimpleNamespace

import pytest

from miniature.student import build_processor
from rollout_doubles import play, record_of
from safer_steer.errors import UserError
from safer_steer_verl.stop_rule import too_few
from safer_steer_verl.utils.own_reward import Reward, sample_turn
from safer_steer_verl.utils.turn_reward import RewardConfig
from training.grpo.config import load_config
from training.grpo.plan import plan

GOOD = """
from helper import WEIGHT

def score(turn):
    assert turn.history and turn.pictures and turn.kind and turn.user
    return WEIGHT * turn.scores.safety + len(turn.answer) / 1000

async def later(turn):
    return score(turn)

def fails(turn):
    return turn.scores.harm

def tells(turn):
    return "nine"

def endless(turn):
    return float("inf")
"""


@pytest.fixture
def file(tmp_path):
    """The user's file, with a module next to it."""
    (tmp_path / "helper.py").write_text("WEIGHT = 2\n")
    (tmp_path / "mine.py").write_text(GOOD)
    return tmp_path / "mine.py"


@pytest.mark.parametrize("name", ["score", "later"])
def test_a_users_function_gets_the_whole_turn_and_its_number_is_the_reward(file, name):
    config = RewardConfig.model_validate(f"{file}:{name}")
    turn = sample_turn()
    assert asyncio.run(Reward(config)(turn)) == pytest.approx(16 + len(turn.answer) / 1000)


def test_a_users_file_may_hold_a_dataclass(tmp_path):
    """With postponed annotations it asks for its module by name."""
    (tmp_path / "own.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n\n"
        "@dataclass\nclass Own:\n    weight: float = 2\n\ndef score(turn):\n    return Own().weight\n"
    )
    config = RewardConfig.model_validate(f"{tmp_path / 'own.py'}:score")
    assert asyncio.run(Reward(config)(sample_turn())) == 2


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mine.py:fails", r"AttributeError: .*'harm' \(mine.py, line 12\)"),
        ("mine.py:tells", "returned 'nine'"),
        ("mine.py:endless", "returned inf"),
        ("mine.py:nobody", "no function of this name; functions of the file: endless, fails, later, score, tells"),
        ("mine.py", "not of the form path.py:function"),
        ("other.py:score", "file not found"),
        ("torn.py:score", r"cannot be imported: SyntaxError"),
        ("ends.py:score", r"cannot be imported: SystemExit"),
    ],
)
def test_a_mistake_is_found_before_the_run(file, name, said):
    (file.parent / "torn.py").write_text("def score(:\n")
    (file.parent / "ends.py").write_text("raise SystemExit(0)\n")
    with pytest.raises(UserError, match=rf"safer_steer.reward: .*{said}.*; a reward function gets one ScoredTurn"):
        load_config("configs/grpo/miniature.yaml", [f"safer_steer.reward={file.parent}/{name}"])


def test_the_plan_names_the_users_files_and_what_the_sample_turn_gets(file):
    (file.parent / "tutor.jinja").write_text("{{ policy }}" * 3 + "{{ data_block(data) }}")
    own = [f"safer_steer.reward={file}:score", f"safer_steer.tutor.prompt={file.parent}/tutor.jinja"]
    said = str(plan(load_config("configs/grpo/miniature.yaml", own).config))
    assert f"tutor's prompt: {file.parent}/tutor.jinja\n" in said
    assert "'I cannot help with that.' with safety=8 usefulness=8 faithfulness=10, gets 16.024\n" in said


@pytest.mark.integration
def test_what_is_said_to_the_user_is_apart_from_what_was_written(file):
    file.write_text("def score(turn):\n    return len(turn.spoken) + 100 * len(turn.answer)\n")
    tags = {"system": None, "tags": ["thinking", "answer"]}
    written = "<thinking>a b</thinking><answer>c</answer>"
    room = {"max_tokens": 64, "response_length": 400}
    output, _, _ = play(
        build_processor(), [f"{written}<|im_end|>"] * 3, reward=f"{file}:score", answer_format=tags, **room
    )
    record = record_of(output)
    assert record.rewards == [1 + 100 * len(answer) for answer in record.answers]
    assert all("thinking" in answer for answer in record.answers)


@pytest.mark.integration
def test_a_failure_in_the_middle_masks_the_trajectory_and_ends_the_run(file):
    file.write_text("def score(turn):\n    return 1 / (2 - 2 * len(turn.history))\n")  # fails at the second turn
    output, _, _ = play(build_processor(), ["a .<|im_end|>"] * 3, reward=f"{file}:score")
    record = record_of(output)
    assert record.rewards == [0.5]
    assert (record.masked, record.ret, record.end) == (True, None, "reward_failed")
    assert not any(output.response_mask)
    problem = too_few([record], 1, SimpleNamespace(max_unscored_rate=0.9, max_token_fault_rate=0.9))
    assert "turn 2: safer_steer.reward" in problem
    assert "ZeroDivisionError: division by zero (mine.py, line 2)" in problem
