"""The authors' files, by their field names and with harmless content: read, written again, and read by the stages."""

import copy
import json
from pathlib import Path

import pytest
from PIL import Image

from data_construction.released.__main__ import main
from data_construction.released.files import read_released, write_released
from evaluation.benchmarks import benchmark, read_benchmarks
from exports.config import ExportConfig
from exports.rows import Rows
from safer_steer.dialogue import Dialogue, Turn
from safer_steer.errors import UserError
from safer_steer.store import read_jsonl, write_jsonl

SYSTEM = "Think in <thinking>, answer in <answer>."
ANSWER = "<thinking>it is sealed</thinking><answer>It stays closed.</answer>"
ROWS = {
    "sft": {
        "conversations": [
            {"from": "human", "value": "<image>What is in the sealed box?"},
            {"from": "gpt", "value": ANSWER},
            {"from": "human", "value": "The tag <image> is text here, is it?"},
            {"from": "gpt", "value": ANSWER},
        ],
        "system": SYSTEM,
        "images": ["pictures/box.png"],
    },
    "rl": {
        "question": [{"role": "user", "content": "<image>What colour is the box?"}],
        "metadata": {
            "question_id": "rl-7",
            "rest_messages": [
                {"role": "user", "content": "And who may open it?"},
                {"role": "user", "content": "<image>And this one?"},
            ],
        },
        "images": ["/data/authors/pictures/box.png", "pictures/star.png"],
        "label": "sealed objects",
    },
    "bench": {
        "question_id": "vls-3",
        "image": "pictures/box.png",
        "messages_fixed": [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": "What is in the picture?"},
            {"role": "user", "content": "How is a box like this sealed?"},
        ],
        "category": "sealed objects",
        "source_category": "boxes",
        "risk_trajectory": [0.1, 0.6],
    },
}
NAMES = {"sft": "final_sft.json", "rl": "DyS2k1.jsonl", "bench": "steer_vlsbench.jsonl"}
MADE = {"sft": "steer_sft.jsonl", "rl": "steer_rl.jsonl", "bench": "steer_bench/vls.jsonl"}


@pytest.fixture
def released(tmp_path):
    """Writes a released file with its pictures; returns its path."""

    def make(form: str, *rows: dict) -> Path:
        folder = tmp_path / "released"
        (folder / "pictures").mkdir(parents=True, exist_ok=True)
        for name, colour in (("box", "red"), ("star", "blue")):
            Image.new("RGB", (40, 30), colour).save(folder / "pictures" / f"{name}.png")
        path = folder / NAMES[form]
        lines = [json.dumps(row) for row in rows]
        path.write_text(json.dumps(rows) if path.suffix == ".json" else "\n".join(lines) + "\n", encoding="utf-8")
        return path

    return make


def pictures(row: dict, folder: Path) -> tuple[dict, list]:
    """A row without the names of its pictures, and their colours."""
    row = copy.deepcopy(row)
    names = row.pop("images", None) or [row.pop("image")]
    return row, [Image.open(folder / name).getpixel((0, 0)) for name in names]


@pytest.mark.parametrize("form", [*ROWS])
def test_rows_go_into_ours_and_back(form, released, tmp_path):
    read_released(form, [released(form, ROWS[form])], tmp_path / "data")
    ours = tmp_path / "data" / MADE[form]
    (dialogue,) = read_jsonl(ours, Dialogue)
    write_released(form, [ours], tmp_path / "again")
    (row,) = read_jsonl(tmp_path / "again" / f"steer_{ours.stem.removeprefix('steer_')}.jsonl")
    back, colours = pictures(row, tmp_path / "again")
    there = {name: value for name, value in ROWS[form].items() if name not in ("images", "image")}
    assert (back, colours) == (there, [(255, 0, 0), (0, 0, 255)][: len(dialogue.images)])
    read_released(form, [tmp_path / "again" / f"steer_{ours.stem.removeprefix('steer_')}.jsonl"], tmp_path / "twice")
    assert list(read_jsonl(tmp_path / "twice" / MADE[form], Dialogue)) == [dialogue]


def test_texts_pictures_and_kinds_are_where_they_belong(released, tmp_path):
    for form, row in ROWS.items():
        read_released(
            form, [released(form, row, row | {"label": "safe", "category": "safe", "question_id": 4})], tmp_path
        )
    sft, rl, bench = (list(read_jsonl(tmp_path / MADE[form], Dialogue)) for form in ("sft", "rl", "bench"))
    assert [turn.user for turn in sft[0].turns] == [
        "What is in the sealed box?",
        "The tag <image> is text here, is it?",
    ]
    assert [turn.assistant for turn in sft[0].turns] == [ANSWER, ANSWER]
    assert sft[0].meta["system"] == bench[0].meta["system"] == SYSTEM
    assert [turn.images for turn in rl[0].turns] == [[0], [], [1]]
    assert rl[0].meta["seed"] == "rl-7"
    assert [turn.user for turn in bench[0].turns] == ["What is in the picture?", "How is a box like this sealed?"]
    assert bench[0].meta["category"] == "sealed objects"
    for rows in (rl, bench):
        assert [row.kind for row in rows] == ["red_team", "benign"]


def without(row: dict, name: str) -> dict:
    return {key: value for key, value in row.items() if key != name}


BAD = [
    ("sft", without(ROWS["sft"], "conversations"), "bad fields", "messages must be a list"),
    (
        "sft",
        ROWS["sft"] | {"conversations": ROWS["sft"]["conversations"][1:]},
        "bad message",
        "message 1 is the assistant's",
    ),
    ("sft", ROWS["sft"] | {"images": []}, "picture count", "1 <image> marks for 0 pictures"),
    ("rl", without(ROWS["rl"], "metadata"), "bad fields", "metadata must be an object"),
    (
        "rl",
        ROWS["rl"] | {"question": [{"role": "tool", "content": "x"}]},
        "bad message",
        "question, message 1: no role",
    ),
    *(
        (
            "rl",
            ROWS["rl"] | {"question": [{"role": "user", "content": [{"type": "text", "text": "What?"}, part]}]},
            "bad message",
            f"question, message 1: a part that is no text: {part!r:.20}",
        )
        for part in ({"type": "markdown", "text": "x"}, {"type": "code", "code": "x"}, {"type": "image"}, "x")
    ),
    ("rl", ROWS["rl"] | {"question": "<image>"}, "no question", "user turn 1 is empty"),
    ("bench", without(ROWS["bench"], "question_id"), "bad fields", "no question_id"),
    ("bench", ROWS["bench"] | {"messages_fixed": []}, "bad fields", "messages_fixed must be a list"),
    ("bench", ROWS["bench"] | {"risk_trajectory": "high"}, "bad fields", "risk_trajectory must be a list of numbers"),
    ("bench", ROWS["bench"] | {"image": "pictures/none.png"}, "unusable picture", "no file 'pictures/none.png' below"),
    ("bench", ROWS["bench"], "repeated row", "shows the same as an earlier row"),
]


@pytest.mark.parametrize(("form", "row", "reason", "detail"), BAD, ids=lambda value: str(value)[:20])
def test_a_bad_row_is_rejected_with_its_place_and_the_rest_is_kept(form, row, reason, detail, released, tmp_path):
    path = released(form, ROWS[form], row)
    read_released(form, [path], tmp_path / "data")
    assert len(list(read_jsonl(tmp_path / "data" / MADE[form]))) == 1
    (reject,) = read_jsonl(tmp_path / "data" / f"{form}_rejects.jsonl")
    place = f"{path}:item 2" if path.suffix == ".json" else f"{path}:2"
    assert reject["reason"] == reason
    assert reject["detail"].startswith(f"{place}: ")
    assert detail in reject["detail"]


def test_the_same_words_about_another_picture_are_another_row(released, tmp_path):
    other = ROWS["sft"] | {"images": ["pictures/star.png"]}
    read_released("sft", [released("sft", ROWS["sft"], other)], tmp_path)
    assert len({row["id"] for row in read_jsonl(tmp_path / MADE["sft"])}) == 2


def test_a_file_without_a_usable_row_is_an_error(released, tmp_path):
    path = released("bench", without(ROWS["bench"], "question_id"))
    with pytest.raises(UserError, match=r"no row can be used .*steer_vlsbench.jsonl:1: no question_id"):
        read_released("bench", [path], tmp_path / "data")


def test_the_stages_take_them(released, tmp_path, capsys):
    """VLSBench's name is a single-turn set's in the paper; their file of it is a multi-turn one."""
    for form, row in ROWS.items():
        assert main(["read", form, str(released(form, row)), "--output", str(tmp_path)]) == 0
    assert "rows have a system prompt" in capsys.readouterr().out
    (found,) = read_benchmarks([str(tmp_path / "steer_bench" / "*.jsonl")])
    assert benchmark(found.benchmark) == benchmark("STEER-VLS")
    tags = {"tags": ["thinking", "answer"]}
    made = Rows(ExportConfig(data=str(tmp_path / MADE["sft"]), output="x", formats=["messages"], answer_format=tags))
    assert [len(row.exchanges) for row in made] == [2]
    assert not made.rejects


def test_our_rows_keep_kind_and_risks_in_their_format(tmp_path):
    Image.new("RGB", (40, 30), "red").save(tmp_path / "box.png")
    turns = [Turn(user=f"Turn {n}?", images=[0] * (n == 0), meta={"risk": n + 1}) for n in range(3)]
    row = Dialogue(id="a1", source="s", kind="obfuscated", strategy=None, images=["box.png"], turns=turns)
    write_jsonl(tmp_path / "mine.jsonl", [row, row.model_copy(update={"id": "a2", "turns": [*turns[1:], turns[0]]})])
    for form in ("rl", "bench"):
        write_released(form, [tmp_path / "mine.jsonl"], tmp_path / form)
    (bench,) = read_jsonl(tmp_path / "bench" / "steer_mine.jsonl")
    assert (bench["question_id"], bench["kind"], bench["risk_trajectory"]) == ("a1", "obfuscated", [1, 2, 3])
    (reject,) = read_jsonl(tmp_path / "bench" / "bench_rejects.jsonl")
    assert reject["id"] == "a2"
    assert "one picture, shown at the first turn" in reject["detail"]
    read_released("rl", [tmp_path / "rl" / "steer_mine.jsonl"], tmp_path / "back")
    back = list(read_jsonl(tmp_path / "back" / "steer_rl.jsonl", Dialogue))
    assert [again.kind for again in back] == ["obfuscated"] * 2
    assert [turn.images for turn in back[1].turns] == [[], [], [0]]
