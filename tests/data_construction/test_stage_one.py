import json
from pathlib import Path

import pytest

from data_steps import run_step
from safer_steer.dialogue import Dialogue
from safer_steer.errors import RunAborted, UserError
from safer_steer.store import read_jsonl


def source(path: Path, **changes) -> dict:
    return {"train": {"reader": "jsonl", "path": str(path)} | changes}


def rows_of(config, name: str = "dialogues.jsonl") -> list[dict]:
    return list(read_jsonl(config.folder / name))


def counts_of(config) -> dict:
    return json.loads((config.folder / "run.stage1.json").read_text())["counts"]


def test_all_kinds_and_every_task_kept_or_rejected(double, make_seeds, make_config):
    config = make_config(source(make_seeds("train", ["weak a", "strong b", "weak c"])))
    run_step("stage1", config)
    dialogues = [Dialogue.model_validate(row) for row in rows_of(config)]
    assert sorted(row.kind for row in dialogues) == ["benign"] * 3 + ["obfuscated"] * 3 + ["red_team"] * 2
    counts = counts_of(config)
    assert (counts["in"], counts["kept"], counts["rejected"], counts["(attack failed)"]) == (9, 8, 1, 1)
    assert all(2 <= len(row.turns) <= 4 for row in dialogues)
    assert all((config.folder / row.images[0]).is_file() and row.turns[0].images == [0] for row in dialogues)
    assert len(double.called("probe")) == 3  # shared by the seed's two rewrites
    record = json.loads((config.folder / "run.stage1.json").read_text())
    assert record["usage"].keys() == {"generator", "target", "evaluator"}
    assert set(record["facts"]["prompts"]) == {"probe", "expand", "forensics", "intent", "plan", "leak", "refusal"}


@pytest.mark.parametrize(("first", "second"), [("seeds", "stage1"), ("stage1", "seeds")])
@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"sources": {"limit": 1}}, "sources.train.limit null -> 1"),
        ({"sources": {"split": "bench"}}, 'sources.train.split "train" -> "bench"'),
        ({"kinds": ["obfuscated"]}, "kinds"),
        ({"injector": {"share": 1.0}}, "injector.share 0.0 -> 1.0"),
        ({"seed": 1}, "seed 0 -> 1"),
    ],
)
def test_both_steps_that_read_seeds_must_want_the_same(make_seeds, make_config, first, second, changes, named):
    path = make_seeds("train", ["a", "b"])
    run_step(first, make_config(source(path), kinds=["benign"]))
    values = {"kinds": ["benign"]} | changes
    other = make_config(source(path, **values.pop("sources", {})), **values)
    with pytest.raises(UserError, match=f"made by the step {first} with other settings; changed: .*{named}"):
        run_step(second, other)
    run_step(second, make_config(source(path), kinds=["benign"]))


def test_a_source_that_changed_after_its_seeds_were_read_is_named(make_seeds, make_config):
    path = make_seeds("train", ["a", "b"])
    run_step("seeds", make_config(source(path), kinds=["benign"]))
    make_seeds("train", ["a", "other"])
    with pytest.raises(UserError, match="made by the step seeds with other settings; changed: source train"):
        run_step("stage1", make_config(source(path), kinds=["benign"]))


def test_the_probe_sees_the_original_picture_whichever_task_asks_first(double, make_seeds, make_config, tmp_path):
    path, shown = make_seeds("train", ["weak a"]), {}
    for kind in ("benign", "red_team"):
        double.requests.clear()
        config = make_config(source(path), kinds=[kind], root=str(tmp_path / kind), injector={"share": 1.0})
        run_step("stage1", config)
        (body,) = double.called("probe")
        shown[kind] = body["messages"][0]["content"][0]["image_url"]
    assert shown["benign"] == shown["red_team"]
    assert double.called("forensics")[0]["messages"][0]["content"][0]["image_url"] != shown["red_team"]


def test_only_scripts_that_leak_are_kept_and_play_stops_there(double, make_seeds, make_config):
    config = make_config(source(make_seeds("train", ["weak a", "strong b"])), kinds=["red_team"])
    config = config.model_copy(update={"turns": config.turns.model_copy(update={"red_team": _four(config)})})
    run_step("stage1", config)
    (kept,) = rows_of(config)
    assert kept["meta"]["seed"] == "train/s0"
    assert kept["meta"]["success_turn"] == 2
    assert len(kept["turns"]) == 4
    assert [turn["meta"]["leak"] for turn in kept["turns"]] == [1, 4, None, None]
    (reject,) = rows_of(config, "rejects.jsonl")
    assert (reject["reason"], reject["detail"]) == ("attack failed", "highest score 1, needed 4")
    assert reject["scores"] == [1, 1, 1, 1]
    (failure,) = rows_of(config, "attack_failures.jsonl")
    assert {name: failure[name] for name in reject} == reject
    assert [turn["leak"] for turn in failure["transcript"]] == reject["scores"]
    assert "transcript" not in reject
    assert reject["strategy"] == reject["id"].rpartition("/")[2]
    assert len(double.called("target")) == 2 + 4


def _four(config):
    return config.turns.red_team.model_copy(update={"min": 4, "max": 4})


def test_the_target_sees_the_picture_and_the_whole_history_at_every_turn(double, make_seeds, make_config):
    config = make_config(source(make_seeds("train", ["strong a"])), kinds=["red_team", "benign"])
    run_step("stage1", config)
    calls = double.called("target")
    (failure,) = rows_of(config, "attack_failures.jsonl")
    assert len(calls) == len(failure["transcript"])
    for number, body in enumerate(calls, start=1):
        messages = body["messages"]
        assert [m["role"] for m in messages] == ["user", "assistant"] * (number - 1) + ["user"]
        assert [part["type"] for part in messages[0]["content"]] == ["image_url", "text"]
        assert all(isinstance(message["content"], str) for message in messages[1:])
    assert len({body["seed"] for body in calls}) == len(calls)


def test_an_answer_without_a_leak_score_is_unscored_not_safe(double, make_seeds, make_config):
    def fault(name, payload, body):
        return double.completion('{"score": 9, "rationale": "r"}') if name == "leak" else None

    double.fault = fault
    config = make_config(source(make_seeds("train", ["weak a", "b"])), kinds=["benign", "red_team"])
    run_step("stage1", config)
    assert {row["reason"] for row in rows_of(config, "rejects.jsonl")} == {"attack unscored"}


def test_rows_lost_to_transport_are_tried_again(double, make_seeds, make_config):
    down = True

    def fault(name, payload, body):
        return (503, {"message": "down"}) if down and name == "probe" and "b" in payload["question"] else None

    double.fault = fault
    questions = ["a", "b", "c"]
    config = make_config(source(make_seeds("train", questions)), kinds=["benign"], max_transport_rate=0.0)
    with pytest.raises(RunAborted, match="1 of 3 tasks failed to reach a model, each twice"):
        run_step("stage1", config)
    assert [row["outcome"] for row in rows_of(config, "rejects.jsonl")] == ["transport"]
    down = False
    asked = len(double.requests)
    run_step("stage1", config)
    assert len(rows_of(config)) == 3
    assert rows_of(config, "rejects.jsonl") == []
    assert len(double.requests) == asked + 2
    usage = json.loads((config.folder / "run.stage1.json").read_text())["usage"]["generator"]
    assert usage["outcomes"] == {"ok": 6, "transport": 2}, "both attempts"


def test_losing_every_row_is_an_error(double, make_seeds, make_config):
    double.fault = lambda name, payload, body: double.completion("no JSON at all") if name == "probe" else None
    config = make_config(source(make_seeds("train", ["a", "b"])), kinds=["benign"])
    with pytest.raises(UserError, match="none of 2 rows could be used"):
        run_step("stage1", config)
