"""Step `history`: which risk rows depend on their history, judged, resumed, and applied by the assembly."""

import json

import pytest
from pydantic import ValidationError

from data_construction.pipeline import main
from safer_steer.dialogue import Dialogue
from safer_steer.errors import UserError
from safer_steer.store import read_jsonl

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


def test_candidates_bound_the_calls_and_are_those_that_rl_takes_first(make, double):
    config = make(*(f"weak fair {i}" for i in range(6)), size=5, history_dependent={"candidates": 4})
    main(config)
    assert len(double.called("request_risk")) == 8
    judged = {row["id"] for row in lines(config, "history_risk.jsonl")}
    assert len(judged) == 4
    assert {row.id for row in rows(config) if row.kind != "benign"} <= judged
    assert len(rows(config)) == 5
    main(make(*(f"weak fair {i}" for i in range(6)), size=5, history_dependent={"candidates": 6}))
    assert judged < {row["id"] for row in lines(config, "history_risk.jsonl")}
    assert len(double.called("request_risk")) == 12, "what was judged is not judged again"


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
