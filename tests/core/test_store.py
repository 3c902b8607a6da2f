"""JSONL store: whole lines, torn tails at every byte, resume by id, odd characters."""

import pytest

from safer_steer.dialogue import Dialogue, Turn
from safer_steer.errors import UserError
from safer_steer.store import JsonlStore, read_jsonl, write_jsonl

ROWS = [
    {"id": "1", "text": "same"},
    {"id": "2", "text": "line\u2028separator \u0085 next"},
    {"id": "3", "text": "same"},
]


def test_torn_tail_at_every_byte_is_repaired_and_nothing_is_there_twice(tmp_path):
    whole = tmp_path / "whole.jsonl"
    write_jsonl(whole, ROWS)
    data = whole.read_bytes()
    torn = tmp_path / "torn.jsonl"
    for cut in range(len(data) + 1):
        torn.write_bytes(data[:cut])
        with JsonlStore(torn) as store:
            for row in ROWS:
                store.append(row)
        assert torn.read_bytes() == data, f"cut at byte {cut}"


def test_drop_takes_rows_out_and_forgets_their_keys(tmp_path):
    with JsonlStore(tmp_path / "a.jsonl") as store:
        for row in ROWS:
            store.append(row)
        before = (tmp_path / "a.jsonl").stat().st_ino
        assert store.drop(lambda row: row["id"] == "9") == 0
        assert (tmp_path / "a.jsonl").stat().st_ino == before  # nothing to drop, nothing rewritten
        assert store.drop(lambda row: row["id"] == "2") == 1
        assert [store.append(row) for row in ROWS] == [False, True, False]
    assert [row["id"] for row in read_jsonl(tmp_path / "a.jsonl")] == ["1", "3", "2"]


def test_rows_split_on_newline_only_and_lone_surrogates_survive(tmp_path):
    rows = [*ROWS, {"id": "4", "text": "lone \ud800 surrogate"}]
    write_jsonl(tmp_path / "a.jsonl", rows)
    (tmp_path / "a.jsonl").read_bytes().decode("utf-8")
    assert list(read_jsonl(tmp_path / "a.jsonl")) == rows


def test_a_broken_whole_line_names_file_and_line(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"id": "1"}\n{broken\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"a\.jsonl:2"):
        list(read_jsonl(tmp_path / "a.jsonl"))
    with pytest.raises(UserError, match="file not found"):
        list(read_jsonl(tmp_path / "missing.jsonl"))


def test_write_jsonl_takes_a_stream_and_leaves_the_old_file_when_it_breaks(tmp_path):
    path = tmp_path / "a.jsonl"
    assert write_jsonl(path, iter(ROWS)) == 3

    def breaks():
        yield ROWS[0]
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        write_jsonl(path, breaks())
    assert list(read_jsonl(path)) == ROWS
    assert [item.name for item in tmp_path.iterdir()] == ["a.jsonl"]


def test_pictures_belong_to_the_first_turn_unless_turns_name_them():
    turns = [Turn(user="a"), Turn(user="b")]
    dialogue = Dialogue(id="1", source="s", kind="benign", strategy=None, images=["x", "y"], turns=turns)
    assert [dialogue.images_at(i) for i in (0, 1)] == [["x", "y"], []]
    shown = dialogue.model_copy(update={"turns": [Turn(user="a", images=[0]), Turn(user="b", images=[1])]})
    assert [shown.images_at(i) for i in (0, 1)] == [["x"], ["y"]]
    with pytest.raises(ValueError, match="picture"):
        Dialogue(id="1", source="s", kind="benign", strategy=None, images=["x"], turns=[Turn(user="a", images=[1])])
