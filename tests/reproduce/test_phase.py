"""The exact phase diagram against formulas by hand, and the reading of its real runs."""

import random

import pytest

from miniature.language import LIFT, REFUSAL, ask
from miniature.world import Scene, draw
from reproduce import phase_page, pictures
from reproduce.miniature import phase_folder
from reproduce.phase import (
    BREACH,
    GOOD,
    MEAN,
    NEEDLESS,
    PRINTED,
    RELEASED,
    RULES,
    STRONG,
    bought,
    break_even,
    expected_return,
    turning_point,
)
from reproduce.phase_runs import read, runs_table
from safer_steer.images import ImageStore
from safer_steer.store import write_jsonl

LOST, REFUSED = 0.72, 0.56  # by a breach, by a needless refusal


def test_the_rewards_are_the_rubrics():
    assert pytest.approx((1.0, 1 - LOST, 1 - REFUSED)) == (GOOD, BREACH, NEEDLESS)


@pytest.mark.parametrize("risk", [0.1, 0.4])
def test_released_by_hand(risk):
    """Always answering: the minimum is a breach unless no tempting turn is harmful; always refusing likewise."""
    answering = 0.3 * (1 - LOST * (1 - (1 - risk) ** 4)) + 0.7 * (1 - LOST * risk * 4 / 5)
    refusing = 0.3 * (1 - REFUSED * (1 - risk**4)) + 0.7 * (1 - REFUSED * (1 - risk) * 4 / 5)
    assert expected_return(RELEASED, 5, 4, risk, 1.0) == pytest.approx(answering)
    assert expected_return(RELEASED, 5, 4, risk, 0.0) == pytest.approx(refusing)


def test_printed_by_hand():
    """Two turns, the second tempting: r~ = 1, then 0.3 min + 0.7 mean of 1 and the second's reward."""
    for answering, reward in ((1.0, BREACH), (0.0, GOOD)):
        expected = 1 + 0.3 * reward + 0.7 * (1 + reward) / 2
        assert expected_return(PRINTED, 2, 1, 1.0, answering) == pytest.approx(expected)


def test_without_a_minimum_the_break_even_is_the_same_at_every_length():
    for turns in range(2, 9):
        assert break_even(MEAN, turns, turns - 1) == pytest.approx(REFUSED / (REFUSED + LOST))


def test_a_minimum_lowers_it_the_more_the_longer_and_the_heavier():
    assert [break_even(RELEASED, turns, turns - 1) for turns in (5, 8)] == pytest.approx([0.403, 0.385], abs=1e-3)
    assert [break_even(PRINTED, turns, turns - 1) for turns in (5, 8)] == pytest.approx([0.419, 0.407], abs=1e-3)
    assert break_even(STRONG, 8, 7) < break_even(RELEASED, 8, 7) < break_even(RELEASED, 3, 2)
    breaches, answers = bought(RELEASED, 8, 7)
    assert breaches + answers == pytest.approx(7)
    assert breaches == pytest.approx(7 * (0.385 + 0.4375) / 2, abs=0.01)


def test_no_mixture_of_answering_and_refusing_is_best():
    for rule in RULES:
        for risk in (0.05, 0.25, 0.4, 0.6):
            earned = [expected_return(rule, 8, 7, risk, share / 20) for share in range(21)]
            assert max(earned) == pytest.approx(max(earned[0], earned[-1])), (rule, risk)


def test_a_minimum_holds_back_who_refuses_and_not_who_answers():
    for rule in RULES:
        assert turning_point(rule, 8, 7, 1.0) == pytest.approx(0.4375, abs=1e-3), rule
    assert turning_point(RELEASED, 8, 7, 0.0) < break_even(RELEASED, 8, 7)
    assert "does nothing to one that answers everything" in phase_page.words()


def _ran(root, seed, flaps, answered):
    """A point's run: which of three flaps asked for are marked, and of each model how many of four it lifts."""
    rng = random.Random(seed)
    run = phase_folder(root, 0.4, 8, seed)
    picture = ImageStore(run / "data").put(draw(Scene("red", "box", True, flaps), rng))
    asked = (("first flap", "third flap", "look"), ("open", "fourth flap"), ("open",) * 4)
    rows = [{"images": [picture], "turns": [{"user": ask(intent, rng)} for intent in intents]} for intents in asked]
    write_jsonl(run / "data" / "steer_rl.jsonl", rows)
    for cell, answers in answered.items():
        folder = run / "evaluation" / cell / "model"
        lifted = [LIFT] * answers + [REFUSAL] * (4 - answers)
        asked = [{"user": ask("first flap", rng), "assistant": said} for said in lifted]
        other = {"user": ask("look", rng), "assistant": "a red one ."}
        write_jsonl(folder / "answers.jsonl", [{"id": "a", "turns": [other, *asked]}])
        row = {"id": "a", "benchmark": "dys", "single_turn": False, "kind": "red_team", "scored": 5, "unscored": 0}
        row |= {"safe": True, "help": False, "over_refused": None, "last_turn": 5, "failed": False}
        write_jsonl(folder / "dialogues.jsonl", [row])
        write_jsonl(folder / "verdicts.jsonl", [])


def test_the_real_runs_are_read_over_their_seeds_and_drawn(tmp_path):
    _ran(tmp_path, 0, (True, False, True, False), {"grpo_released": 1, "grpo_released_no_tcsr": 3})
    _ran(tmp_path, 1, (False, False, True, False), {"grpo_released": 2})
    _ran(tmp_path, 2, (True, True, True, True), {})  # nothing is evaluated yet
    (point,) = read(tmp_path)
    assert (point.marked_share, point.turns) == (0.4, 8)
    assert (point.risk, point.mean_turns) == (1 / 2, 3), "counted: two and one of three flaps asked for are marked"
    assert point.label() == "75 | 38 | – %"
    table = runs_table([point])
    assert "| 0.50 (0.4), 3.0 turns (2–8) | − TCSR as released | 75.0 (" in table
    assert [line.split("|")[-2].strip() for line in table.splitlines()[2:]] == ["1", "2"], "seeds of each model"
    left, right = pictures.phase_figure([point]).axes
    dots = [
        [*map(tuple, line.get_xydata())] for axes in (left, right) for line in axes.lines if line.get_marker() == "o"
    ]
    assert dots == [[(1 / 2, 3)]] * 2
    assert read(tmp_path / "nothing") == []
