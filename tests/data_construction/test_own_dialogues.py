"""Stage II on a user's own dialogues: any file of them, chosen by place or id, in any number, resumed and grown."""

import json

import pytest
from PIL import Image
from pydantic import ValidationError

from builders import dialogue
from data_construction import pipeline
from data_construction.config import DataConfig
from data_construction.plan import plan
from safer_steer.cli import in_json
from safer_steer.dialogue import Dialogue
from safer_steer.errors import UserError
from safer_steer.store import dump_row, read_jsonl


@pytest.fixture
def own(tmp_path):
    """A file of five dialogues: with a picture at turn 2, without any, with twelve turns, and with old scores."""
    folder = tmp_path / "own"
    folder.mkdir()
    Image.new("RGB", (40, 40), "red").save(folder / "red.png")
    score = {"safety": 1, "usefulness": 1, "faithfulness": 1}
    rows = [
        dialogue("a", "one", {"user": "two", "images": [0]}, images=["red.png"], meta={"injector": "mine", "task": 3}),
        dialogue("b", "no picture", "at all", kind="red_team", strategy="mine", meta={"category": "c"}),
        dialogue("c", *(f"turn {number}" for number in range(12)), kind="obfuscated"),
        dialogue("d", {"user": "scored", "assistant": "yes", "scores": score}, "and on"),
        dialogue("e", "an unsafe one", "more"),
    ]
    path = folder / "mine.jsonl"
    path.write_text("".join(dump_row(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def config(own, double, make_config):
    """A config of Stage II on that file, without sources."""

    def make(steps=("stage2",), dialogues=None, **changes) -> DataConfig:
        assemble = {"rl_share": 0.0, "rl": {"size": 0}, "bench": {"size": 0}}
        values = {"steps": list(steps), "dialogues": {"path": str(own)} | (dialogues or {}), "assemble": assemble}
        return make_config({}, **values | changes)

    return make


def rows(config, name="bootstrapped.jsonl") -> dict[str, Dialogue]:
    return {row.meta["seed"]: row for row in read_jsonl(config.folder / name, Dialogue)}


def test_stage_two_takes_any_dialogue_file(config, double):
    found = config()
    pipeline.main(found)
    made = rows(found)
    assert list(rows(found, "dialogues.jsonl")) == [f"own/{name}" for name in "abcde"]
    assert made.keys() == {f"own/{name}" for name in "abcde"}
    assert len(made["own/c"].turns) == 12
    first = made["own/a"]
    assert [turn.user for turn in first.turns] == ["one please", "two please"]
    assert first.images_at(1) == first.images
    assert (found.folder / first.images[0]).is_file()
    assert [turn.scores.safety for turn in made["own/d"].turns] == [9, 9], "old scores are not taken over"
    stored = rows(found, "dialogues.jsonl")["own/a"]
    assert stored.meta["own"] == {"injector": "mine", "task": 3}, "its own words mean nothing here"
    assert (made["own/b"].kind, made["own/b"].strategy) == ("red_team", "mine")
    calls = len(double.requests)
    pipeline.main(found)
    assert len(double.requests) == calls


def test_red_may_break_the_rules_that_its_template_breaks(config, own):
    said = {"id": "f", "source": "s", "kind": "benign", "strategy": None, "images": []}
    turns = [{"user": text} for text in ("Warum ? Und wozu ?", "Los !")]
    own.write_text(json.dumps(said | {"turns": turns}) + "\n")
    found = config(quality={"languages": ["en"], "min_turn_words": 5})
    pipeline.main(found)
    assert rows(found)["own/f"].turns[0].user == "Warum ? Und wozu ? please"


def test_the_splits_follow_from_own_dialogues(config):
    found = config(["stage2", "assemble"])
    pipeline.main(found)
    sft = {row.meta["seed"] for row in read_jsonl(found.folder / "steer_sft.jsonl", Dialogue)}
    assert sft == {f"own/{name}" for name in "abcd"}  # e: safety 3, below the keep rule
    left = [(row["split"], row["reason"]) for row in read_jsonl(found.folder / "left_out.jsonl")]
    assert left == [("sft", "keep rule: safety below threshold and usefulness below threshold")]


def test_more_dialogues_are_added_and_none_is_asked_for_again(config, double):
    def new(dialogues, steps=("stage2",)):
        found = config(steps, dialogues)
        double.requests.clear()
        pipeline.main(found)
        return set(rows(found)), len(double.called("blue"))

    assert new({"limit": 2}) == ({"own/a", "own/b"}, 4)
    assert new({"limit": "2-3"}) == ({"own/b", "own/c"}, 12)
    assert new({"limit": 3}, ("stage2", "assemble")) == ({"own/a", "own/b", "own/c"}, 0)
    assert new({"ids": ["d"]}, ("stage2", "assemble")) == ({"own/d"}, 2)
    assert new({}, ("stage2", "assemble")) == ({f"own/{name}" for name in "abcde"}, 2)


def test_bad_rows_are_rejected_with_their_line_and_the_rest_is_used(config, own):
    lines = own.read_text().splitlines()
    missing = json.dumps(json.loads(lines[0]) | {"id": "f", "images": ["none.png"]})
    own.write_text("\n".join([lines[1], "{", lines[1], missing, lines[3]]))
    found = config()
    pipeline.main(found)
    assert set(rows(found)) == {"own/b", "own/d"}
    reasons = {row["id"]: row["reason"] for row in read_jsonl(found.folder / "rejects.jsonl")}
    assert reasons == {"mine.jsonl:2": "not JSON", "mine.jsonl:3": "repeated id", "own/f": "unusable picture"}
    assert "; 2 bad rows: " in str(plan(found))
    assert f"{own}:3: " in str(plan(found)), "each of them is named"
    counts = json.loads((found.folder / "run.stage1.json").read_text())["counts"]
    assert (counts["in"], counts["kept"], counts["rejected"]) == (5, 2, 3)


def test_the_plan_counts_the_files_turns(config):
    said = str(plan(config()))
    assert "mine.jsonl: 5 dialogues, 20 turns" in said
    assert "stage 2: at most 5 dialogues" in said
    blue = next(line for line in said.splitlines() if "blue" in line)
    assert " 20 |" in blue


def test_wrong_choices_are_clear(config, own, make_config):
    with pytest.raises(UserError, match=r"dialogues.ids: no row 'x' in .*mine.jsonl"):
        pipeline.main(config(dialogues={"ids": ["a", "x"]}))
    with pytest.raises(ValidationError, match="limit and ids both choose rows"):
        config(dialogues={"ids": ["a"], "limit": 1})
    with pytest.raises(ValidationError, match=r"name sources, or dialogues\.path"):
        make_config({})
    own.unlink()
    with pytest.raises(UserError, match=r"mine\.jsonl"):
        pipeline.main(config())


def test_retry_asks_again_what_has_no_score(config, double):
    double.fault = lambda name, payload, body: (
        TeacherSays.nothing(double) if name == "turn_scores" and "unsafe" in payload["user"] else None
    )
    found = config()
    pipeline.main(found)
    kept = rows(found)
    assert "own/e" not in kept
    double.fault = lambda name, payload, body: None
    double.requests.clear()
    pipeline.main(found)
    assert not double.requests
    pipeline.main(config(retry="unscored"))
    again = rows(found)
    assert again.pop("own/e")
    assert again == kept
    assert len(double.called("turn_scores")) == 2
    assert len(double.called("blue")) == 1  # turn 1 was answered already
    assert not list(read_jsonl(found.folder / "bootstrap_rejects.jsonl"))


class TeacherSays:
    """An evaluator's answer that is none."""

    @staticmethod
    def nothing(double):
        return double.completion("no JSON")


def test_json_says_what_the_closing_lines_say(config, capsys):
    found = config(["stage2", "assemble"])
    in_json(lambda: (pipeline.main(found), pipeline.closing(found)))
    out, err = capsys.readouterr()
    said = json.loads(out)
    assert said["folder"] == str(found.folder)
    assert said["steps"]["stage2"]["counts"]["kept"] == 5
    assert said["steps"]["assemble"]["counts"] == {"sft": 4, "rl": 0, "bench": 0}
    assert "assemble: 4 sft" in err


def test_seeds_are_chosen_by_place_and_by_id(make_seeds, make_config):
    path = str(make_seeds("train", [f"q {number}" for number in range(6)]))

    def taken(**choice):
        found = make_config({"train": {"reader": "jsonl", "path": path} | choice}, kinds=["benign"], steps=["seeds"])
        number = str(plan(found)).partition("source train (jsonl, train): ")[2].partition(" seeds")[0]
        root = found.model_copy(update={"root": f"{found.root}/{choice}"})
        pipeline.main(root)
        ids = [row["seed"]["id"] for row in read_jsonl(root.folder / "seeds.jsonl")]
        assert int(number) == len(ids)
        return sorted(ids)

    assert taken(limit="2-3") == ["s1", "s2"]
    assert taken(limit="6-9") == ["s5"]
    assert taken(ids=["s4", "s0"]) == ["s0", "s4"]
    with pytest.raises(UserError, match=r"sources.train.ids: no row 's9' in"):
        taken(ids=["s9"])
