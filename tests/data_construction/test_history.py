"""Step `history`: which risk rows depend on their history, judged, resumed, and applied by the assembly."""

import json
import random

import pytest
from pydantic import ValidationError

from data_construction.history import history_tasks
from data_construction.pipeline import main
from miniature.teacher import create_app
from miniature.world import Scene, draw
from safer_steer.dialogue import Dialogue, Turn
from safer_steer.errors import UserError
from safer_steer.images import ImageStore
from safer_steer.store import read_jsonl, write_jsonl

KINDS = ["benign", "obfuscated", "red_team"]
ALL_STEPS = ["stage1", "history", "assemble"]


def rl_only(**rl) -> dict:
    splits = {"rl_share": 1.0, "sft": {"origin": "answered", "size": 0}, "bench": {"size": 0}}
    return splits | {"rl": {"history_dependent": {}} | rl}


@pytest.fixture
def make(make_seeds, make_config):
    def config(*questions: str, steps=ALL_STEPS, **rl):
        sources = {"train": {"reader": "jsonl", "path": str(make_seeds("train", list(questions)))}}
        return make_config(sources, kinds=KINDS, steps=steps, assemble=rl_only(**rl))

    return config


def rows(config) -> list[Dialogue]:
    return list(read_jsonl(config.folder / "steer_rl.jsonl", Dialogue))


def lines(config, name: str) -> list[dict]:
    return list(read_jsonl(config.folder / name))


def test_risk_rows_stay_when_only_their_history_makes_them_risky(make, double):
    config = make("weak fair", "weak blunt", "weak mild")
    main(config)
    by_kind = {kind: [row for row in rows(config) if row.kind == kind] for kind in KINDS}
    assert [len(by_kind[kind]) for kind in KINDS] == [3, 1, 1]
    for kind in KINDS[1:]:
        (row,) = by_kind[kind]
        assert "fair" in row.turns[-1].user
        assert row.meta["history_risk"] == {"alone": 2, "with_history": 4}
    assert not any("history_risk" in row.meta for row in by_kind["benign"])
    left = {(row["kind"], row["reason"]) for row in lines(config, "left_out.jsonl")}
    assert left == {
        (kind, reason) for kind in KINDS[1:] for reason in ("history: risky without it", "history: not risky with it")
    }
    stats = json.loads((config.folder / "stats.json").read_text())
    assert stats["left_out"]["rl"] == {"history: risky without it": 2, "history: not risky with it": 2}
    assert stats["history_risk"] == [
        {"alone": 2, "with_history": 2, "rows": 2},
        {"alone": 2, "with_history": 4, "rows": 2},
        {"alone": 5, "with_history": 5, "rows": 2},
    ]
    assert "## History-dependence" in (config.folder / "stats.md").read_text()
    assert json.loads((config.folder / "run.history.json").read_text())["counts"]["kept"] == 6


def test_the_last_turn_is_judged_alone_and_with_the_users_turns(make, double):
    main(make("weak fair"))
    bodies = double.called("request_risk")
    assert len(bodies) == 4  # two risk rows, twice each
    text = [next(part["text"] for part in body["messages"][0]["content"] if part["type"] == "text") for body in bodies]
    assert sum('"history": []' in item for item in text) == 2


def test_without_pictures_the_last_turn_stands_by_its_words(make, double):
    main(make("weak fair", history_dependent={"alone_shows_pictures": False}))
    shown = [isinstance(body["messages"][0]["content"], list) for body in double.called("request_risk")]
    assert sorted(shown) == [False, False, True, True]


def test_other_thresholds_need_no_new_calls(make, double):
    config = make("weak fair", "weak blunt", "weak mild")
    main(config)
    asked = len(double.requests)
    for thresholds, number in (({"min_with_history": 5}, 3), ({"max_alone": 1}, 3), ({"max_alone": 3}, 5)):
        main(make("weak fair", "weak blunt", "weak mild", history_dependent=thresholds))
        assert len(rows(config)) == number
    assert len(double.requests) == asked
    with pytest.raises(UserError, match="alone_shows_pictures true -> false"):
        main(make("weak fair", "weak blunt", "weak mild", history_dependent={"alone_shows_pictures": False}))


def test_a_row_without_both_judgements_is_left_out_not_taken_for_harmless(make, double):
    def fault(name, payload, body):
        wrong = name == "request_risk" and payload["history"] and "fair" in payload["user"]
        return double.completion('{"risk": 9, "rationale": "r"}') if wrong else None

    double.fault = fault
    config = make("weak fair", "weak other")
    main(config)
    assert {row["reason"] for row in lines(config, "history_rejects.jsonl")} == {"request_risk: unparsed"}
    assert all("other" in row.turns[-1].user for row in rows(config) if row.kind != "benign")
    reasons = [row["reason"] for row in lines(config, "left_out.jsonl")]
    assert reasons == ["history: not judged"] * 2


def test_a_transport_failure_is_judged_again_and_nothing_else(make, double):
    broken = {"down": True}

    def fault(name, payload, body):
        down = name == "request_risk" and payload["history"] and "fair" in payload["user"] and broken["down"]
        return (503, {"message": "down"}) if down else None

    double.fault = fault
    config = make("weak fair", "weak other", steps=["stage1", "history"])
    main(config)
    assert [row["outcome"] for row in lines(config, "history_rejects.jsonl")] == ["transport"] * 2
    broken["down"] = False
    (config.folder / "run.history.json").unlink()
    double.requests.clear()
    main(config)
    assert len(lines(config, "history_risk.jsonl")) == 4
    assert len(double.called("request_risk")) == 2  # the two that failed; what they had before came from the cache


def test_candidates_bound_the_calls_and_are_those_that_rl_takes_first(make, double):
    config = make(*(f"weak fair {i}" for i in range(6)), size=5, history_dependent={"candidates": 4})
    main(config)
    assert len(double.called("request_risk")) == 8
    judged = {row["id"] for row in lines(config, "history_risk.jsonl")}
    assert len(judged) == 4
    assert {row.id for row in rows(config) if row.kind != "benign"} <= judged
    assert len(rows(config)) == 5


@pytest.mark.parametrize(
    ("splits", "steps", "message"),
    [
        ({"rl": {}}, ALL_STEPS, "needs assemble.rl.history_dependent"),
        (rl_only(history_dependent={"max_alone": 4}), ALL_STEPS, "must be below min_with_history"),
        (rl_only(history_dependent={"max_alone": 0}), ALL_STEPS, "max_alone"),
    ],
)
def test_config_mistakes_are_named(make_config, splits, steps, message):
    with pytest.raises(ValidationError, match=message):
        make_config({"train": {"reader": "jsonl", "path": "x"}}, steps=steps, assemble=splits)


def test_assembly_needs_the_judgements(make, double):
    with pytest.raises(UserError, match="step history is not finished"):
        main(make("weak fair", steps=["stage1", "assemble"]))


def miniature_row(folder, number: int, sealed: bool, *users: str) -> tuple[dict, Dialogue]:
    picture = ImageStore(folder).put(draw(Scene("red", "box", sealed), random.Random(number)))
    seed = {"id": f"train/{number}", "origin": "train", "split": "train", "benchmark": None, "kinds": ["red_team"]}
    seed["seed"] = {"id": str(number), "source": "s", "image": picture, "question": users[-1]}
    row = Dialogue(
        id=f"{number:016}",
        source="s",
        kind="red_team",
        strategy="continuation",
        images=[picture],
        turns=[Turn(user=text) for text in users],
        meta={"task": str(number), "seed": f"train/{number}", "split": "train", "technique": "t", "success_turn": 1},
    )
    return seed, row


NEXT, OPEN, LOOK = "good , what is the next step ?", "tell me how to open it .", "what colour is it ?"
WORLD = [  # sealed, user turns
    (True, [OPEN, NEXT]),
    (True, [LOOK, NEXT]),
    (True, [LOOK, OPEN]),
    (True, [OPEN, LOOK]),
    (False, [OPEN, NEXT]),
    (False, [LOOK, OPEN]),
]


@pytest.mark.parametrize(("with_pictures", "stay"), [(True, {0}), (False, {0, 2})])
def test_the_miniatures_rules_find_the_rows_that_depend_on_their_history(make_config, serve, with_pictures, stay):
    """With the picture shown both times, only a turn that the dialogue makes risky; without it, the seal is history."""
    url = serve(create_app())
    config = make_config(
        {"train": {"reader": "jsonl", "path": "unused"}},
        kinds=["red_team"],
        steps=["history", "assemble"],
        assemble=rl_only(mix={"red_team": 1}, history_dependent={"alone_shows_pictures": with_pictures}),
        roles={"evaluator": {"model": "mini-evaluator", "base_url": url}},
    )
    made = [miniature_row(config.folder, i, sealed, *users) for i, (sealed, users) in enumerate(WORLD)]
    write_jsonl(config.folder / "seeds.jsonl", [seed for seed, _ in made])
    for name in ("candidates.jsonl", "dialogues.jsonl"):
        write_jsonl(config.folder / name, [row for _, row in made])
    write_jsonl(config.folder / "rejects.jsonl", [])
    (config.folder / "run.stage1.json").write_text('{"status": "finished"}')
    assert len(history_tasks(config)) == len(WORLD)
    main(config)
    assert {int(row.id) for row in rows(config)} == stay
