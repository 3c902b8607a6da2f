"""The generic source: every format and picture form, the field map, bad rows rejected with file and line."""

import datetime
import decimal
import json
from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from builders import png
from data_construction.sources import SOURCES
from safer_steer.errors import UserError
from safer_steer.images import load_image
from safer_steer.store import dump_row

GENERIC = SOURCES["generic"]


def write(path: Path, *lines) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
    return path


def problems(rows) -> dict[str, str]:
    return {row.id: row.reason for row in rows if row.problem}


def test_fields_are_mapped_and_reach_into_objects(tmp_path):
    line = {"uid": 7, "data": {"img": "x.png", "prompt": " q "}, "gold": 3, "cat": "c", "extra": {"a": 1}}
    fields = {
        "id": "uid",
        "image": "data.img",
        "question": "data.prompt",
        "answer": "gold",
        "meta": "extra",
        "meta.b": "cat",
    }
    (row,) = GENERIC.read(write(tmp_path / "s.jsonl", line), fields)
    assert (row.id, row.picture, row.question, row.answer) == ("7", tmp_path / "x.png", "q", "3")
    assert row.meta == {"a": 1, "b": "c"}


def test_bad_lines_are_rejected_with_file_and_line_and_the_rest_goes_on(tmp_path):
    good = {"id": "good", "image": "x.png", "question": "q\u2028still one line"}
    path = write(
        tmp_path / "s.jsonl",
        "{torn\n",
        "[1]\n",
        {"id": "mute", "image": "x.png", "question": " "},
        {"id": "two", "image": ["a.png", "b.png"], "question": "q"},
        good,
        {"image": "x.png", "question": "unnamed"},
        {"image": "x.png", "question": "unnamed too"},
    )
    path.write_bytes(path.read_bytes() + b'{"id": "latin", "question": "caf\xe9"}\n')
    rows = list(GENERIC.read(path))
    assert problems(rows) == {
        "s.jsonl:1": "bad record",
        "s.jsonl:2": "bad record",
        "mute": "no question",
        "two": "several pictures",
        "s.jsonl:8": "bad record",
    }
    assert f"{path}:line 1: not JSON" in rows[0].problem
    assert f"{path}:line 8: not JSON in UTF-8" in rows[-1].problem
    assert rows[4].question == good["question"]
    assert len({row.id for row in rows}) == 8  # rows without an id are named by their content


def test_half_a_surrogate_pair_and_a_number_without_end_are_bad_records(tmp_path):
    lines = ['{"id": "a", "question": "\\ud800"}\n', f'{{"id": {"9" * 5000}, "question": "q"}}\n']
    rows = list(GENERIC.read(write(tmp_path / "s.jsonl", *lines, {"id": "c", "question": "\U0001f600"})))
    assert problems(rows) == {"a": "bad record", "s.jsonl:2": "bad record"}
    assert rows[2].question == "\U0001f600"


def test_a_bad_csv_row_spoils_no_other(tmp_path):
    lines = [b"id,image,question", b"a,x.png,fine", b"b,x.png,caf\xe9", b"c,x.png", b"d,x.png,q,more", b"e,x.png,fine"]
    (tmp_path / "s.csv").write_bytes(b"\n".join(lines))
    rows = list(GENERIC.read(tmp_path / "s.csv"))
    assert [row.id for row in rows if not row.problem] == ["a", "e"]
    assert list(problems(rows)) == ["s.csv:3", "s.csv:4", "s.csv:5"]
    assert "not UTF-8: byte 0xe9" in rows[1].problem
    assert "2 columns, but the header names 3" in rows[2].problem


def test_parquet_structs_and_paths(tmp_path):
    (tmp_path / "cat.png").write_bytes(png())
    structs = [
        {"bytes": png((40, 40)), "path": "gone.png"},
        {"bytes": None, "path": "cat.png"},
        {"bytes": b"", "path": None},
    ]
    table = pyarrow.table({"id": ["a", "b", "c"], "question": ["q"] * 3, "images": [[item] for item in structs]})
    pyarrow.parquet.write_table(table, tmp_path / "s.parquet")
    a, b, c = GENERIC.read(tmp_path / "s.parquet")
    assert (load_image(a.picture).size, load_image(b.picture).size, c.picture) == ((40, 40), (30, 30), None)
    assert GENERIC.count(tmp_path / "s.parquet") == 3
    assert GENERIC.count(tmp_path / "s.parquet", limit=2) == 2


def test_values_that_json_cannot_hold(tmp_path):
    """A table's empty cells are NaN; dates, decimals and bytes come as objects."""
    columns = {
        "id": [float("nan"), 2.0],
        "question": ["q", "r"],
        "image": [float("nan"), float("nan")],
        "answer": [float("nan"), 4.5],
        "meta": [
            {"score": float("inf"), "day": datetime.date(2024, 5, 1), "raw": b"12", "cost": decimal.Decimal("1.5")},
            None,
        ],
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "s.parquet")
    first, second = GENERIC.read(tmp_path / "s.parquet")
    assert (first.picture, first.answer, second.id, second.answer) == (None, None, "2.0", "4.5")
    assert len(first.id) == 16
    assert first.meta == {"score": None, "day": "2024-05-01", "raw": "(2 bytes)", "cost": "1.5"}
    (row,) = GENERIC.read(
        write(tmp_path / "s.jsonl", '{"id": 1, "question": "q", "meta": {"a": NaN, "b": "\\ud800"}}\n')
    )
    assert dump_row(row.meta) == '{"a": null, "b": "?"}'


def test_a_saved_dataset_is_read_by_split(tmp_path):
    for split in ("train", "test"):
        rows = {"id": [f"{split}-1"], "question": ["q"], "image": [{"bytes": png(), "path": None}]}
        features = datasets.Features(
            {"id": datasets.Value("string"), "question": datasets.Value("string"), "image": datasets.Image()}
        )
        datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "saved" / split))
    assert [row.id for row in GENERIC.read(tmp_path / "saved")] == ["test-1", "train-1"]
    (row,) = GENERIC.read(tmp_path / "saved", split="train")
    assert load_image(row.picture).size == (30, 30)


def test_a_folder_is_read_by_split(tmp_path):
    for name in ("train-2.jsonl", "train-10.jsonl", "test.jsonl"):
        write(tmp_path / "data" / name, {"id": name, "question": "q"})
    assert [row.id for row in GENERIC.read(tmp_path, split="train")] == ["train-2.jsonl", "train-10.jsonl"]
    assert len(list(GENERIC.read(tmp_path))) == 3
    with pytest.raises(UserError, match="no generic file below"):
        list(GENERIC.read(tmp_path, split="validation"))


def test_one_picture_without_a_tag_belongs_to_the_first_turn(tmp_path):
    chat = [{"role": "system", "content": "s"}, {"role": "user", "content": "What animal?"}]
    parts = [{"from": "human", "value": "<image>\nWhat animal?"}, {"from": "gpt", "value": "A cat."}]
    mixed = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What animal?"}]}]
    path = write(
        tmp_path / "s.jsonl",
        {"id": "a", "image": "cat.jpg", "messages": chat},
        {"id": "b", "image": "cat.jpg", "conversations": parts},
        {"id": "c", "images": ["cat.jpg"], "messages": mixed},
        {"id": "d", "image": "cat.jpg", "messages": [{"role": "user", "content": "<image> and <image>?"}]},
        {"id": "e", "image": "cat.jpg", "messages": [{"role": "assistant", "content": "Hm."}]},
        {"id": "f", "image": "cat.jpg", "messages": ["no turn"]},
    )
    rows = list(GENERIC.read(path))
    assert [row.question for row in rows[:3]] == ["What animal?"] * 3
    assert [row.reason for row in rows[3:]] == ["picture count", "no question", "no question"]
    assert "'d'" in rows[3].problem


PART = {"type": "image_url", "image_url": {"url": "a.png"}}


def chat(*parts) -> dict:
    content = list(parts) if len(parts) > 1 else parts[0]
    return {"messages": [{"role": "user", "content": content}]}


TEXT = {"type": "text", "text": "What?"}


@pytest.mark.parametrize(
    ("row", "question", "picture"),
    [
        (chat(PART, TEXT), "What?", "a.png"),
        (chat({"type": "text", "text": "<image>?"}, PART), "<image>?", "a.png"),
        (chat("What?", {"type": "image", "image": "a.png"}), "What?", "a.png"),
        ({"image": "b.png"} | chat(PART, "Is <image> HTML?"), "Is <image> HTML?", "b.png"),
        ({"image": "a.png"} | chat("Is <image> HTML?"), "Is <image> HTML?", "a.png"),
        ({"image": "a.png"} | chat("<image>\nWhat?"), "What?", "a.png"),
        ({"image": "a.png", "conversations": [{"from": "human", "value": "What?\n<image>"}]}, "What?", "a.png"),
        ({"image": "a.png", "messages": json.dumps(chat("What?")["messages"])}, "What?", "a.png"),
        (chat({"inlineData": {"path": "a.png"}}, {"text": "What?"}), "What?", "a.png"),
        ({"image": PART, "question": "What?"}, "What?", "a.png"),
        ({"images": [{"url": "a.png"}], "question": "What?"}, "What?", "a.png"),
    ],
)
@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_pictures_in_messages_and_marks_in_text(tmp_path, row, question, picture, ending):
    if ending == "jsonl":
        write(tmp_path / "s.jsonl", row)
    else:
        try:
            table = pyarrow.Table.from_pylist([row])
        except pyarrow.ArrowException:
            pytest.skip("a column holds values of one type")
        pyarrow.parquet.write_table(table, tmp_path / "s.parquet")
    (found,) = GENERIC.read(tmp_path / f"s.{ending}")
    assert (found.problem, found.question, found.picture) == ("", question, tmp_path / picture)


def test_where_takes_some_rows(tmp_path):
    path = write(tmp_path / "s.jsonl", *({"id": n, "question": "q", "kind": n % 3, "ok": n > 1} for n in range(6)))
    assert [row.id for row in GENERIC.read(path, where={"kind": [1, 2]})] == ["1", "2", "4", "5"]
    assert [row.id for row in GENERIC.read(path, where={"ok": "True", "kind": 0})] == ["3"]


def test_unknown_names_and_missing_files_are_user_errors(tmp_path):
    with pytest.raises(UserError, match="unknown name"):
        list(GENERIC.read(write(tmp_path / "s.jsonl"), {"picture": "p"}))
    with pytest.raises(UserError, match="not found"):
        list(GENERIC.read(tmp_path / "none.jsonl"))
    with pytest.raises(UserError, match=r"no reader for \.txt"):
        list(GENERIC.read(write(tmp_path / "s.txt", "x")))
    with pytest.raises(UserError, match="no split 'dev'; choose from: train"):
        SOURCES["spa_vl"].check({}, "dev")


def test_only_the_rows_asked_for_are_read(tmp_path):
    """A stream: the torn end of the file is not reached."""
    path = write(tmp_path / "s.json", "[" + ", ".join('{"id": "a", "question": "q"}' for _ in range(9)))
    rows = GENERIC.read(path)
    assert not next(rows).problem
    rows.close()
