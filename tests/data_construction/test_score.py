"""Step `score`: the train candidates, answered and scored, and the two rules over their scores."""

import json

import pytest
from pydantic import ValidationError

from data_construction.assemble.config import Measures, ScoreRule
from data_construction.pipeline import main
from data_construction.plan import plan
from data_construction.score import CandidateScores
from safer_steer.dialogue import Dialogue
from safer_steer.errors import UserError
from safer_steer.store import read_jsonl

SAFE, UNSAFE = {"lowest_safety": [8, 10]}, {"lowest_safety": [1, 7]}
STEPS = ["stage1", "score", "stage2", "assemble"]


@pytest.fixture
def make(make_seeds, make_config):
    """A config with both rules; a seed with "unsafe" in it has unsafe answers."""

    def config(*questions: str, steps=STEPS, sft=SAFE, rl=UNSAFE, rl_share=0.5, **changes):
        sources = {"train": {"reader": "jsonl", "path": str(make_seeds("train", list(questions)))}}
        splits = {
            "rl_share": rl_share,
            "sft": {"candidate_rule": sft},
            "rl": {"candidate_rule": rl, "size": 0 if rl_share == 0 else None},
            "bench": {"size": 0},
        }
        return make_config(sources, steps=steps, assemble=splits, **changes)

    return config


def rows(config, name: str, model=None) -> list:
    return list(read_jsonl(config.folder / name, model))


def test_each_split_is_drawn_from_what_its_rule_leaves(make, double, capsys):
    config = make(*(f"weak {'un' * (i % 2)}safe {i}" for i in range(12)))
    main(config)
    said = {row.id: [turn.user for turn in row.turns] for row in rows(config, "dialogues.jsonl", Dialogue)}
    scored = {row.id: row for row in rows(config, "candidate_scores.jsonl", CandidateScores)}
    assert scored.keys() == said.keys()
    for name, row in scored.items():
        assert [turn.safety for turn in row.scores] == [3 if "unsafe" in user else 9 for user in said[name]]
    asked = double.called("rewrite")
    assert asked
    assert not any("unsafe" in json.dumps(body) for body in asked), "Stage II has rows that Rule 1 leaves out"
    sft, rl = (rows(config, f"steer_{name}.jsonl", Dialogue) for name in ("sft", "rl"))
    assert sft
    assert rl
    assert not any("unsafe" in turn.user for row in sft for turn in row.turns)
    assert all(any("unsafe" in turn.user for turn in row.turns) for row in rl)
    assert "Rule 2: lowest safety outside 1-7" in {row["reason"] for row in rows(config, "left_out.jsonl")}
    page = (config.folder / "stats.md").read_text()
    assert "| Rule 1, for STEER-SFT | 18 | 15,400 |" in page
    assert "| Rule 2, for STEER-RL | 18 | 24,000 |" in page
    assert "Rule 1 leaves 18 of 36 scored candidates (paper: 15,400)" in capsys.readouterr().out


def test_answers_of_played_attacks_are_not_asked_for_again(make, double):
    """The play of "weak" stops at its second turn; the target answers the rest, with what it said before that."""
    config = make("weak safe", steps=["stage1"], kinds=["red_team"], rl_share=0)
    main(config)
    (row,) = rows(config, "dialogues.jsonl", Dialogue)
    double.requests.clear()
    main(make("weak safe", steps=["score"], kinds=["red_team"], rl_share=0))
    assert len(double.called("target")) == len(row.turns) - 2
    for number, body in enumerate(double.called("turn_scores"), start=1):
        text = json.dumps(body)
        assert all((turn.user in text) == (place < number) for place, turn in enumerate(row.turns))
    played = [turn["assistant"] for turn in row.meta["transcript"]]
    assert all(text in json.dumps(double.called("turn_scores")[-1]) for text in played)


def test_a_candidate_without_scores_is_in_no_split_and_is_scored_when_resumed(make, double):
    down = {"is": True}

    def fault(name, payload, body):
        return (503, {"message": "down"}) if down["is"] and name == "turn_scores" and "bad" in payload["user"] else None

    double.fault = fault
    config = make("good safe", "bad safe", steps=["stage1", "score"], kinds=["benign"], rl_share=0)
    main(config)
    assert [row["outcome"] for row in rows(config, "score_rejects.jsonl")] == ["transport"]
    everything = make("good safe", "bad safe", kinds=["benign"], rl_share=0)
    main(everything)
    assert [row.meta["seed"] for row in rows(config, "steer_sft.jsonl", Dialogue)] == ["train/s0"]
    down["is"] = False
    (config.folder / "run.score.json").unlink()
    double.requests.clear()
    main(config)
    assert len(rows(config, "candidate_scores.jsonl")) == 2
    assert all("bad" in json.dumps(body) for _, body in double.requests)


def test_other_bounds_of_a_made_set_need_no_calls(make, double):
    questions = [f"weak {'un' * (i % 2)}safe {i}" for i in range(8)]
    everything = {"tau_safe": 1, "tau_help": 1}
    config = make(*questions, sft={"mean_usefulness": [1, 9]}, bootstrap=everything)
    main(config)
    all_of_it, asked = len(rows(config, "steer_sft.jsonl")), len(double.requests)
    main(make(*questions, steps=["assemble"], bootstrap=everything))
    assert 0 < len(rows(config, "steer_sft.jsonl")) < all_of_it
    assert len(double.requests) == asked
    main(make(*questions, steps=["score"], rl_share=0.25))
    assert len(double.requests) == asked, "all were scored, whichever split they are for"


def test_what_needs_the_scores_asks_for_the_step(make):
    config = make("weak safe", steps=["stage1", "stage2"])
    with pytest.raises(UserError, match="step score is not finished"):
        main(config)
    with pytest.raises(ValidationError, match="the step score needs"):
        make("weak safe", sft=None, rl=None)


def test_bounds_belong_to_a_rule_and_are_in_order():
    rule = ScoreRule(lowest_safety=(2, 7), mean_faithfulness=(6.5, 10))
    assert not rule.why_not(Measures(2, 1, 6.5))
    assert not rule.why_not(Measures(7, 10, 10))
    assert rule.why_not(Measures(8, 10, 10)) == "lowest safety outside 2-7"
    assert rule.why_not(Measures(7, 10, 6.4)) == "mean faithfulness outside 6.5-10"
    with pytest.raises(ValidationError, match="the lower bound 8 is above the upper one 7"):
        ScoreRule(lowest_safety=(8, 7))


def test_the_plan_names_the_step_with_its_calls_and_cost(make, double):
    questions = [f"weak safe {i}" for i in range(10)]
    turns = {kind: {"min": 3, "max": 3} for kind in ("benign", "obfuscated", "red_team")}
    names = ("generator", "red", "blue", "target", "evaluator")
    price = {"base_url": double.url, "price_in": 1000, "price_out": 1000}
    config = make(*questions, kinds=["benign"], turns=turns, roles={role: {"model": role} | price for role in names})
    line = next(line for line in str(plan(config)).splitlines() if "score (optional)" in line)
    assert "at most 30 of target and 30 of evaluator calls, about $" in line
    assert "score (optional)" not in str(plan(make(*questions, steps=["stage1"])))
