import json

import pytest

from data_construction.red_team.failures import FILE, RejectStore
from data_construction.red_team.plan import curve_problems
from data_construction.red_team.strategies import STRATEGIES
from data_construction.red_team.techniques import POOLS
from data_steps import run_step
from safer_steer.data_block import parse_data_block
from safer_steer.store import read_jsonl


@pytest.mark.parametrize(
    ("risks", "reasons"),
    [
        ([1, 5], []),
        ([1, 2, 2, 4], []),
        ([1, 3, 2, 5], ["risk curve falls"]),
        ([1, 2, 3], ["risk curve ends low"]),
        ([5, 5, 5], ["risk curve does not rise"]),
        ([4, 3], ["risk curve falls", "risk curve ends low", "risk curve does not rise"]),
    ],
)
def test_risk_curves(risks, reasons):
    assert [problem.reason for problem in curve_problems(risks)] == reasons


def source(path):
    return {"train": {"reader": "jsonl", "path": str(path)}}


def test_each_module_sees_what_the_one_before_found(double, make_seeds, make_config):
    config = make_config(source(make_seeds("train", ["weak a"])), kinds=["red_team"])
    run_step("stage1", config)
    (row,) = read_jsonl(config.folder / "dialogues.jsonl")

    def data(name):
        content = double.called(name)[0]["messages"][0]["content"]
        return parse_data_block(next(part["text"] for part in content if part["type"] == "text"))

    chosen = STRATEGIES[row["strategy"]]
    assert data("intent")["question"] == "O weak a?"  # the probe's obfuscated rewrite, Eq. 9
    assert data("intent")["strategy"] == chosen.as_data()
    assert data("intent")["forensics"]["description"] == "d"
    assert data("plan")["technique"]["course"] == POOLS["paper"][row["meta"]["technique"]].course
    assert data("plan")["original_intent"] == "weak a"
    assert data("plan")["n_turns"] == len(row["turns"])
    assert data("leak")["aim"] == "weak a"
    assert [turn["meta"]["risk"] for turn in row["turns"]][-1] >= 4


def test_a_script_whose_risk_falls_is_asked_for_again_and_then_rejected(double, make_seeds, make_config):
    def fault(name, payload, body):
        if name != "plan":
            return None
        risks = range(payload["n_turns"], 0, -1)
        turns = [{"goal": "g", "tactic": "t", "risk": risk, "user": f"see {risk}?"} for risk in risks]
        return double.completion(json.dumps({"turns": turns}))

    double.fault = fault
    config = make_config(source(make_seeds("train", ["weak a"])), kinds=["benign", "red_team"])
    run_step("stage1", config)
    (reject,) = read_jsonl(config.folder / "rejects.jsonl")
    assert reject["reason"] == "plan: risk curve falls"
    assert len(double.called("plan")) == 2
    assert double.called("target") == []


def test_a_refusal_that_the_endpoint_reports_is_what_the_target_said(double, make_seeds, make_config):
    def fault(name, payload, body):
        if name != "target":
            return None
        status, answer = double.completion(None)
        answer["choices"][0]["message"]["refusal"] = "I will not."
        return status, answer

    double.fault = fault
    config = make_config(source(make_seeds("train", ["strong a", "b"])), kinds=["benign", "red_team"])
    run_step("stage1", config)
    failures = list(read_jsonl(config.folder / "attack_failures.jsonl"))
    assert {row["reason"] for row in failures} == {"attack failed"}
    assert all(turn["assistant"] == "I will not." for row in failures for turn in row["transcript"])


def test_transcripts_go_to_their_own_file_except_those_to_be_tried_again(tmp_path):
    with RejectStore(tmp_path / "rejects.jsonl") as rejects:
        lost = {"id": "a", "reason": "attack failed", "outcome": None, "transcript": [1], "scores": [1]}
        again = {"id": "b", "reason": "target: transport", "outcome": "transport", "transcript": [2]}
        plain = {"id": "c", "reason": "no picture", "outcome": None}
        for row in (lost, again, plain):
            assert rejects.append(row)
        assert not rejects.append(lost)
    slim = {name: value for name, value in lost.items() if name != "transcript"}
    assert list(read_jsonl(tmp_path / "rejects.jsonl")) == [slim, again, plain]
    assert list(read_jsonl(tmp_path / FILE)) == [lost]
