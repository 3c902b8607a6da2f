"""The record of a trajectory: its dialogue row and the metrics of a step."""

from types import SimpleNamespace

import pytest

from safer_steer.dialogue import Dialogue
from safer_steer.rubric import TurnScores
from safer_steer_verl.step_metrics import first_failure, step_metrics
from safer_steer_verl.stop_rule import not_finite, too_few
from safer_steer_verl.trajectory import TrajectoryRecord
from safer_steer_verl.tutor_usage import TutorUsage


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


def test_the_row_shows_rewards_advantages_and_pictures_as_seen_from_its_file():
    row = record(advantages=[0.25, None], relocked=1).row(step=3, pictures="../data")
    assert row.images == ["../data/images/a.png"]
    assert [turn.meta["advantage"] for turn in row.turns] == [0.25, None]
    assert row.turns[0].meta["next_adapted"] is True
    assert "next_adapted" not in row.turns[1].meta


def test_metrics_leave_unscored_turns_out_and_count_them():
    lost = record(ret=None, safety=(2,), masked=True, unscored=True, tcsr=[], group="x")
    metrics = step_metrics([record(ret=1.0), record(ret=2.0, safety=(10, 3)), lost], expected=4)
    assert metrics["rollout/masked"] == 1
    assert metrics["rollout/masked_rate"] == pytest.approx(1 / 3)
    assert metrics["rollout/missing"] == 1
    assert metrics["rollout/unscored_rate"] == pytest.approx(2 / 4)
    assert metrics["tutor/return_mean"] == pytest.approx(1.5)
    assert metrics["tutor/safety_mean"] == pytest.approx((10 + 8 + 10 + 3 + 2) / 5)
    assert metrics["tutor/fully_safe_share"] == pytest.approx(0.5)


LIMITS = SimpleNamespace(max_unscored_rate=0.1, max_token_fault_rate=0.1)


@pytest.mark.parametrize(
    ("lost", "faulty", "came_back", "said", "not_said"),
    [
        (2, 2, 8, None, None),  # fewer than three say nothing about the share
        (1, 0, 7, None, None),
        (3, 0, 8, "38% of 8 trajectories have no score", "chat template"),
        (3, 3, 8, "most often: 503; see to the tutor", "chat template"),
        (0, 3, 8, "most often: forged; the tutor has no part in it", "see to the tutor"),
        (1, 0, 5, "3 of them because the rollout engine failed", "see to the tutor"),
        (0, 0, 0, "100% of 8 trajectories have no score", "see to the tutor"),
    ],
)
def test_the_stop_rule_blames_the_tutor_the_tokens_or_the_engine(lost, faulty, came_back, said, not_said):
    rows = [record(masked=True, unscored=True, reason="503") for _ in range(lost)]
    rows += [record(masked=True, token_fault=True, reason="forged") for _ in range(faulty)]
    rows += [record() for _ in range(came_back - len(rows))]
    problem = too_few(rows, 8, LIMITS)
    if said is None:
        assert problem is None
    else:
        assert said in problem
        assert not_said not in problem
    metrics = step_metrics(rows, 8)
    assert metrics["rollout/token_fault_rate"] == faulty / 8
    assert metrics["rollout/unscored_rate"] == (lost + 8 - came_back) / 8


@pytest.mark.parametrize(
    ("metrics", "stops"), [({}, False), ({"actor/grad_norm": 3.5}, False), ({"actor/grad_norm": float("nan")}, True)]
)
def test_a_gradient_that_is_not_finite_stops_the_run(metrics, stops):
    problem = not_finite(metrics)
    assert bool(problem) is stops
    if stops:
        assert problem.startswith("the gradient's norm (actor/grad_norm) is nan, not a finite number")
        assert "continues from the last checkpoint" in problem


def test_groups_that_teach_nothing_are_counted():
    gone = [record(ret=None, masked=True, group="gone") for _ in range(2)]
    lone = [record(group="lone"), record(ret=None, masked=True, group="lone")]
    flat = [record(ret=1.0, group="flat"), record(ret=1.0, group="flat")]
    useful = [record(ret=1.0, group="useful"), record(ret=2.0, group="useful")]
    metrics = step_metrics([*gone, *lone, *flat, *useful], expected=8)
    counts = [metrics[f"rollout/{name}_groups"] for name in ("masked", "lone", "flat")]
    assert counts == [1, 1, 1]


def test_scores_by_turn_and_the_first_failure():
    rows = [record(safety=(10, 8)), record(safety=(10, 4, 10)), record(safety=(1,))]
    metrics = step_metrics(rows, expected=3)
    assert metrics["turn_01/safety"] == pytest.approx(7.0)
    assert metrics["turn_02/safety"] == pytest.approx(6.0)
    assert metrics["turn_03/faithfulness"] == 10
    assert "turn_04/safety" not in metrics
    assert [first_failure(row) for row in rows] == [None, 2, 1]
    assert metrics["tutor/first_failure_turn"] == pytest.approx(1.5)
    assert metrics["tutor/fully_safe_share"] == pytest.approx(1 / 3)


def test_over_refusal_counts_benign_rows_only_and_the_attack_mix_is_a_share():
    benign = record(kind="benign", safety=(5, 10), strategies=["none", "none"])
    risky = record(safety=(5, 5), strategies=["persistence", "deepen"])
    metrics = step_metrics([benign, risky], expected=2)
    assert metrics["tutor/benign_over_refusal_share"] == pytest.approx(0.5)
    assert metrics["attack/none_share"] == pytest.approx(0.5)
    assert metrics["attack/deepen_share"] == pytest.approx(0.25)
    assert metrics["attack/bait_and_switch_share"] == 0.0
    assert "tutor/benign_over_refusal_share" not in step_metrics([risky], expected=1)


def test_the_tutors_usage_is_the_workers_latest_totals_and_what_a_step_added():
    def sent(worker, calls):
        stats = {"calls": calls, "retries": 0, "tokens_in": 10 * calls, "tokens_out": calls}
        return record(tutor_usage={"worker": worker, "stats": stats})

    usage = TutorUsage()
    assert usage.take([sent("a", 5), sent("a", 4), sent("b", 3)])["tutor/step_calls"] == 8  # an older total comes late
    second = usage.take([sent("a", 9), record()])
    assert (second["tutor/step_calls"], second["tutor/step_tokens_in"], second["tutor/calls"]) == (4, 40, 12)
    assert usage.by_worker()["a"]["calls"] == 9
