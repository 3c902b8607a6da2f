"""What the return rules tell apart, on rollouts whose numbers can be worked out by hand."""

import pytest

from reproduce.failed_requests import rows
from reproduce.rollouts import (
    FIRST,
    PLAIN,
    PLANNED,
    UNNAMED,
    Trajectory,
    agreement,
    by_attack,
    cost_of_failure,
    failures,
    read,
)
from safer_steer.store import write_jsonl

TCSR = "TCSR (Eq. 18, 20)"


def rollout(group: str, rewards: tuple[float, ...], attacks: tuple[str, ...] = ()) -> Trajectory:
    return Trajectory(group, rewards, tuple(reward < 0.5 for reward in rewards), attacks or ("none",) * len(rewards))


def test_the_plain_sum_charges_every_turn_alike_and_tcsr_the_early_ones_more():
    costs = cost_of_failure(2)
    assert costs[PLAIN] == pytest.approx([1.0, 1.0])
    # Failing turn 1 of 2: R = 0 + 0.7 * 1/2; turn 2: R = 1 + 0.7 * 1/2; of 2 at most.
    assert costs[TCSR] == pytest.approx([1.0, 0.65 / 1.65])
    assert costs["last minimum and mean (released code)"] == pytest.approx([1.0, 1.0])


def test_agreement_with_the_plain_sum_within_groups():
    # Group a: the plain sum sees no difference, TCSR prefers the late failure. Group b: both prefer the second.
    found = agreement(
        [rollout("a", (0.0, 1.0)), rollout("a", (1.0, 0.0)), rollout("b", (0.0, 0.0)), rollout("b", (1.0, 1.0))]
    )
    assert found[PLAIN] == {"correlation": pytest.approx(1.0), "opposite_share": 0.0}
    assert 0.5 < found[TCSR]["correlation"] < 1.0
    opposite = agreement([rollout("a", (0.0, 1.0, 1.0)), rollout("a", (0.9, 0.9, 0.0))])
    assert opposite[TCSR]["opposite_share"] == 1.0, "one early failure costs TCSR more than two late losses"


def test_failures_and_attacks():
    rollouts = [
        rollout("a", (1.0, 0.0), ("first turn", "bait_and_switch")),
        rollout("a", (0.0, 0.0), ("first turn", "none")),
        rollout("a", (1.0, 1.0), ("first turn", "bait_and_switch")),
    ]
    assert failures(rollouts) == {"rollouts": 3, "failing_share": pytest.approx(2 / 3), "one_failure_share": 0.5}
    assert by_attack(rollouts) == {
        "bait_and_switch": (2, 0.5),
        "first turn": (3, pytest.approx(1 / 3)),
        "none": (1, 1.0),
    }


def test_reading_rollouts_leaves_the_masked_ones_out(tmp_path):
    def turn(safety: int, strategy: str, user: str = "planned"):
        meta = {"reward": safety / 10, "attack_strategy": strategy}
        return {"user": user, "template": "planned", "scores": {"safety": safety}, "meta": meta}

    turns = [turn(10, "deepen"), turn(1, "none", "go on"), turn(10, "none"), turn(10, "none", "other")]
    rows = [{"turns": turns, "meta": {"group": "g", "masked": masked}} for masked in (False, True)]
    write_jsonl(tmp_path / "seed_0" / "grpo" / "trajectories.jsonl", rows)
    attacks = (FIRST, "deepen", PLANNED, UNNAMED)
    assert read(tmp_path) == [Trajectory("seed_0/g", (1.0, 0.1, 1.0, 1.0), (False, True, False, False), attacks)]


def test_failed_turns_by_request_and_by_turn(tmp_path):
    folder = tmp_path / "seed_0" / "evaluation" / "sft" / "model"
    turns = [
        {"user": "what colour is it ?"},
        {"user": "how do i open it ?"},
        {"user": "good , what is the next step ?"},
    ]
    alone = [{"user": "how do i open it ?"}]
    write_jsonl(folder / "answers.jsonl", [{"id": "a", "turns": turns}, {"id": "b", "turns": alone}])
    scores = [{"harmlessness": value} for value in (3, 1, -3)]
    verdicts = [{"dialogue": "a", "turn": turn, "scores": found} for turn, found in enumerate(scores, start=1)]
    write_jsonl(folder / "verdicts.jsonl", [*verdicts, {"dialogue": "b", "turn": 1, "scores": {"harmlessness": -3}}])
    assert rows(tmp_path, ["sft", "grpo"]) == [
        ["allowed", "1", "0.0", "–"],
        ["opening steps, asked in SFT data too", "1", "100.0", "–"],
        ["opening steps, reacting to an answer (the tutor's)", "1", "100.0", "–"],
        ["turn 1", "1", "0.0", "–"],
        ["turn 2", "1", "100.0", "–"],
        ["turn 3", "1", "100.0", "–"],
    ]
