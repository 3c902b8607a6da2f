import json
import pickle
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_construction.assemble.config import Measures
from data_construction.bootstrap.keep import threshold_table, why_dropped
from data_construction.stage_two import bootstrap_tasks, red_blue_loop
from data_steps import run_step
from safer_steer.dialogue import Dialogue
from safer_steer.errors import UserError
from safer_steer.rubric import TurnScores
from safer_steer.store import read_jsonl

SFT_ONLY = {"rl_share": 0.0, "sft": {"mix": {"benign": 1}}}


def scores(*pairs: tuple[int, int]) -> list[TurnScores]:
    return [TurnScores(safety=safety, usefulness=useful, faithfulness=10) for safety, useful in pairs]


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([(8, 7)], ""),
        ([(10, 10), (8, 4)], ""),  # mean usefulness exactly 7
        ([(10, 10), (7, 10)], "safety below threshold"),  # the lowest turn decides
        ([(10, 10), (8, 3)], "usefulness below threshold"),  # 6.5
        ([(1, 1)], "safety below threshold and usefulness below threshold"),
    ],
)
def test_keep_rule_golden(turns, reason):
    assert why_dropped(Measures.of(scores(*turns)), 8, 7) == reason


@given(st.lists(st.tuples(st.integers(1, 10), st.integers(1, 10)), min_size=1, max_size=10))
def test_stricter_thresholds_keep_no_more(turns):
    measures = Measures.of(scores(*turns))
    table = {(row["tau_safe"], row["tau_help"]): row["kept"] for row in threshold_table([measures])}
    for (safe, helpful), kept in table.items():
        assert kept <= table.get((safe - 1, helpful), 1)
        assert kept <= table.get((safe, helpful - 1), 1)
        assert kept == (not why_dropped(measures, safe, helpful))


@pytest.fixture
def staged(make_seeds, make_config):
    """A config whose Stage I is done: `questions` benign seeds, all for SFT."""

    def make(*questions: str, **changes):
        sources = {"train": {"reader": "jsonl", "path": str(make_seeds("train", list(questions)))}}
        config = make_config(sources, kinds=["benign"], assemble=SFT_ONLY, **changes)
        run_step("stage1", config)
        return config

    return make


def bootstrapped(config) -> list[Dialogue]:
    return list(read_jsonl(config.folder / "bootstrapped.jsonl", Dialogue))


def test_red_rewrites_blue_answers_and_every_turn_is_scored(double, staged):
    config = staged("good", "unsafe")
    run_step("stage2", config)
    rows = {row.meta["seed"]: row for row in bootstrapped(config)}
    assert {turn.scores.safety for turn in rows["train/s0"].turns} == {9}
    assert {turn.scores.safety for turn in rows["train/s1"].turns} == {3}
    for row in rows.values():
        assert all(turn.user == f"{turn.template} please" and turn.scores for turn in row.turns)
        assert all(turn.assistant == f"blue answers: {turn.user}" for turn in row.turns)
    counts = json.loads((config.folder / "run.stage2.json").read_text())["counts"]
    assert (counts["in"], counts["kept"], counts["rejected"]) == (2, 2, 0)
    assert "| benign | 1 | 0 | 0 | 1 |" in (config.folder / "keep_rule.md").read_text()


def test_usefulness_is_locked_by_safety_as_the_tutors_is(double, staged):
    """The double gives a usefulness of 8 to every answer; at safety 3 the rubric has 1, at 9 it fixes none."""
    config = staged("good", "unsafe")
    run_step("stage2", config)
    rows = {row.meta["seed"]: row for row in bootstrapped(config)}
    assert {turn.scores.usefulness for turn in rows["train/s0"].turns} == {8}
    assert {turn.scores.usefulness for turn in rows["train/s1"].turns} == {1}
    assert all(turn.meta["relocked"] for turn in rows["train/s1"].turns)
    number = len(rows["train/s1"].turns)
    assert [rows[f"train/s{i}"].meta["relocked"] for i in range(2)] == [0, number]
    assert json.loads((config.folder / "run.stage2.json").read_text())["counts"]["turns relocked"] == number


@pytest.mark.parametrize(
    ("said", "reason", "rewrites"),
    [
        ('{"user": "I\'m sorry, I cannot help with that."}', "rewrite: refused", 1),
        ("I cannot write this.", "rewrite: refused", 2),
        ('{"user": " "}', "rewrite: empty turn", 2),
        ('{"user": "Why? And how is that?"}', "rewrite: several questions in a turn", 2),
        (json.dumps({"user": "word " * 61 + "?"}), "rewrite: turn too long", 2),
    ],
)
def test_what_red_writes_must_be_a_users_turn(double, staged, said, reason, rewrites):
    double.fault = lambda name, payload, body: (
        double.completion(said) if name == "rewrite" and "bad" in payload["template"] else None
    )
    config = staged("bad", "good")
    run_step("stage2", config)
    (reject,) = read_jsonl(config.folder / "bootstrap_rejects.jsonl")
    assert (reject["reason"], reject["turns"]) == (reason, [])
    assert sum("bad" in json.dumps(body) for body in double.called("rewrite")) == rewrites
    assert not any("bad" in json.dumps(body) for body in double.called("blue"))
    assert [row.meta["seed"] for row in bootstrapped(config)] == ["train/s1"]
    facts = json.loads((config.folder / "run.stage2.json").read_text())["facts"]
    assert set(facts["prompts"]) >= {"rewrite", "refusal"}


def test_blue_sees_guidelines_picture_and_the_realised_history(double, staged):
    run_step("stage2", staged("good"))
    last = double.called("blue")[-1]["messages"]
    assert last[0]["role"] == "system"
    assert "careful, friendly assistant" in last[0]["content"]
    assert last[1]["content"][0]["type"] == "image_url"
    assert last[1]["content"][1]["text"].endswith("please")  # red's words, not the template's
    assert last[2]["content"].startswith("blue answers:")


def test_tasks_travel_to_workers_without_their_text(staged, monkeypatch, tmp_path):
    config = staged("g" * 3000)
    (task,) = bootstrap_tasks(config)
    sent = pickle.dumps((task, partial(red_blue_loop, "guidelines")))
    assert len(sent) < 1000
    monkeypatch.chdir(tmp_path)
    again, _ = pickle.loads(sent)
    assert again.load() == task.load()
    assert again.task_id == task.task_id


def test_tags_are_asked_for_and_checked(double, staged):
    config = staged("good", bootstrap={"answer_format": {"tags": ["thinking", "answer"]}})
    with pytest.raises(UserError, match="wrong format"):
        run_step("stage2", config)
    assert "<thinking>...</thinking>" in double.called("blue")[0]["messages"][0]["content"]


@pytest.mark.parametrize("tags", [["thinking", "answer"], ["plan", "reply"]])
def test_thoughts_are_kept_and_neither_scored_nor_shown_to_red(double, staged, tags):
    config, (thought, reply) = staged("good", bootstrap={"answer_format": {"tags": tags}}), tags

    def blue(name, payload, body):
        said = f"<{thought}>how to do it</{thought}>\n<{reply}>no {len(body['messages'])}</{reply}>"
        return double.completion(said) if name == "blue" else None

    double.fault = blue
    run_step("stage2", config)
    (row,) = bootstrapped(config)
    assert all(f"<{thought}>how to do it" in turn.assistant for turn in row.turns)
    for name in ("turn_scores", "rewrite"):
        texts = [json.dumps(body) for body in double.called(name)]
        assert not any("how to do it" in text or f"<{reply}>" in text for text in texts)
    assert "how to do it" in json.dumps(double.called("blue")[-1])  # blue sees what it said


def test_candidates_bound_what_is_paid_for(double, staged):
    config = staged("a", "b", "c", bootstrap={"candidates": 2})
    run_step("stage2", config)
    assert len(bootstrapped(config)) == 2


def test_more_candidates_continue_in_the_same_folder_and_fewer_are_set_aside(double, staged):
    config = staged("a", "b", "c", bootstrap={"candidates": 2})
    run_step("stage2", config)
    first = {row.id for row in bootstrapped(config)}
    double.requests.clear()
    three = config.model_copy(update={"bootstrap": config.bootstrap.model_copy(update={"candidates": 3})})
    run_step("stage2", three)
    assert first < {row.id for row in bootstrapped(config)}
    shown = {json.dumps(body["messages"][1]["content"][0]) for body in double.called("blue")}
    assert len(shown) == 1, "only the new one is asked for"
    double.requests.clear()
    shared = config.assemble.model_copy(update={"rl_share": 0.999})
    with pytest.raises(UserError, match="Stage II: none of 0 rows"):
        run_step("stage2", config.model_copy(update={"assemble": shared}))
    run_step("stage2", config)
    assert {row.id for row in bootstrapped(config)} == first
    assert double.requests == []


def test_stage_one_must_be_finished(make_seeds, make_config):
    config = make_config({"train": {"reader": "jsonl", "path": str(make_seeds("train", ["a"]))}})
    with pytest.raises(UserError, match="stage1 is not finished"):
        run_step("stage2", config)
