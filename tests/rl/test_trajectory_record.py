"""The record of a trajectory: its dialogue row and the metrics of a step."""

import pytest

from safer_steer.dialogue import Dialogue
from safer_steer.verdict import TurnScores
from safer_steer_verl.trajectory import TrajectoryRecord, step_metrics


def record(ret=1.0, safety=(10, 8), **values) -> TrajectoryRecord:
    turns = len(safety)
    base = {
        "dialogue_id": "d1",
        "source": "world",
        "kind": "red_team",
        "images": ["images/a.png"],
        "group": "0123456789",
        "rollout": 1,
        "users": ["u"] * turns,
        "statics": ["s"] * turns,
        "answers": ["a"] * turns,
        "scores": [TurnScores(safety=s, usefulness=s, faithfulness=10) for s in safety],
        "strategies": ["persistence"] * turns,
        "diagnoses": [""] * turns,
        "adapted": [True] * (turns - 1),
        "rewards": [0.5] * turns,
        "tcsr": [0.5] * turns,
        "ret": ret,
        "generated_tokens": 7,
        "mask_tokens": 7,
    }
    return TrajectoryRecord.model_validate(base | values)


def test_the_row_is_a_dialogue_with_scores_and_rollout_facts():
    row = record().row(step=3)
    assert Dialogue.model_validate(row.model_dump(mode="json")) == row
    assert row.id == "3:01234567:1"
    assert row.meta["step"] == 3
    assert row.meta["return"] == 1.0
    assert [turn.scores.safety for turn in row.turns] == [10, 8]
    assert row.turns[0].meta["tcsr"] == 0.5
    assert row.turns[0].template == "s"


def test_an_unscored_turn_has_no_score_in_the_row():
    lost = record(
        ret=None, safety=(10,), users=["u", "v"], answers=["a", "b"], statics=["s", "s"], masked=True, tcsr=[]
    )
    row = lost.row(step=1)
    assert row.turns[1].scores is None
    assert row.meta["masked"] is True
    assert row.meta["return"] is None


def test_metrics_leave_unscored_turns_out_and_count_them():
    lost = record(ret=None, safety=(2,), masked=True, unscored=True, tcsr=[], group="x")
    metrics = step_metrics([record(ret=1.0), record(ret=2.0, safety=(10, 3)), lost], expected=4)
    assert metrics["rollout/masked"] == 1
    assert metrics["rollout/missing"] == 1
    assert metrics["rollout/unscored_rate"] == pytest.approx(2 / 4)
    assert metrics["tutor/return_mean"] == pytest.approx(1.5)
    assert metrics["tutor/safety_mean"] == pytest.approx((10 + 8 + 10 + 3 + 2) / 5)
    assert metrics["tutor/fully_safe_share"] == pytest.approx(0.5)
    assert metrics["rollout/flat_groups"] == 0


def test_a_step_without_any_score_reports_no_mean():
    metrics = step_metrics([], expected=2)
    assert metrics["rollout/unscored_rate"] == 1.0
    assert not any(name.startswith("tutor/") for name in metrics)
