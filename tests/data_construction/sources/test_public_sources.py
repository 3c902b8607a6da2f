"""Every public source in both layouts: pictures in files beside the metadata, and parquet with picture structs."""

import json
import zipfile
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from builders import png
from data_construction.sources import SOURCES
from safer_steer.errors import UserError
from safer_steer.images import load_image

ROOT = Path(__file__).parents[3]


def put(path: Path, content) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def parquet(path: Path, **columns) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(columns), path)


def structs(*sides) -> list[dict]:
    return [{"bytes": png((side, side)), "path": f"{side}.png"} for side in sides]


def good(name: str, *args, **options) -> list:
    """The source's rows, all usable, with their pictures decoded."""
    rows = list(SOURCES[name].read(*args, **options))
    assert not [row.problem for row in rows if row.problem]
    for row in rows:
        assert row.source == name
        assert load_image(row.picture).mode == "RGB"
    return rows


@pytest.mark.parametrize("name", [name for name in SOURCES if name != "jsonl"])
def test_declarations_are_complete(name):
    source = SOURCES[name]
    assert source.name == name
    assert {"image", "question"} <= set(source.fields)
    assert source.licence or source.any_data_set
    with pytest.raises(UserError, match="below"):
        list(source.read(ROOT / "tests" / "core"))


def test_jailbreakv_28k(tmp_path):
    put(tmp_path / "JailBreakV_28K" / "figstep" / "1.png", png())
    header = "id,jailbreak_query,redteam_query,format,policy,image_path,from,selected_mini,transfer_from_llm\n"
    lines = [
        "0,long text,short text,figstep,Fraud,figstep/1.png,Handcraft,True,False",
        "1,b,c,Logic,Fraud,gone.png,X,,True",
    ]
    put(tmp_path / "JailBreakV_28K" / "JailBreakV_28K.csv", (header + "\n".join(lines)).encode())
    row, missing = SOURCES["jailbreakv_28k"].read(tmp_path)
    assert (row.id, row.question, row.meta["policy"]) == ("0", "long text", "Fraud")
    assert load_image(row.picture).size == (30, 30)
    assert "picture not found: " in missing.problem
    (plain,) = good("jailbreakv_28k", tmp_path, {"question": "redteam_query"}, where={"transfer_from_llm": False})
    assert plain.question == "short text"
    parquet(tmp_path / "pq" / "JailBreakV_28K-0.parquet", id=[3], jailbreak_query=["q"], image=structs(31))
    assert [row.id for row in good("jailbreakv_28k", tmp_path / "pq")] == ["3"]


def test_spa_vl(tmp_path):
    parquet(tmp_path / "data" / "train-00000-of-00001.parquet", image=structs(30, 31), question=["q", "r"])
    for half in ("harm", "help"):
        classes = {f"class{n}": [f"{half}{n}"] for n in (1, 2, 3)}
        parquet(tmp_path / "test" / f"{half}-00000-of-00001.parquet", image=structs(32), question=[half], **classes)
    assert [row.question for row in good("spa_vl", tmp_path)] == ["q", "r"]
    assert [row.question for row in good("spa_vl", tmp_path, split="test")] == ["harm", "help"]
    (row,) = good("spa_vl", tmp_path, split="test_harm")
    assert row.meta == {"class1": "harm1", "class2": "harm2", "class3": "harm3"}
    put(tmp_path / "files" / "a b" / "1.jpg", png())
    put(tmp_path / "files" / "train.json", [{"id": 233, "image": "a b/1.jpg", "question": "q", "chosen": "no"}])
    (row,) = good("spa_vl", tmp_path / "files")
    assert (row.id, row.answer) == ("233", None)


def test_beavertails_v(tmp_path):
    for category in ("animal_abuse", "horror_and_gore"):
        columns = {"question": ["q", "q"], "category": [category] * 2, "image_severity": [2, 2], "response": ["a", "b"]}
        side = len(category)
        parquet(tmp_path / "data" / category / "train.parquet", image=structs(side + 30, side + 30), **columns)
        parquet(tmp_path / "data" / category / "evaluation.parquet", image=structs(60), question=[category])
    rows = good("beavertails_v", tmp_path)
    assert len(rows) == 4
    assert len({row.id for row in rows}) == 2  # one question with two answers is one seed
    assert rows[0].meta == {"category": "animal_abuse", "image_severity": 2}
    assert [row.question for row in good("beavertails_v", tmp_path, split="test")] == [
        "animal_abuse",
        "horror_and_gore",
    ]
    put(tmp_path / "files" / "images" / "1.png", png())
    put(tmp_path / "files" / "train.jsonl", {"question": "q", "image": "images/1.png", "category": "c"})
    assert len(good("beavertails_v", tmp_path / "files")) == 1


def problem(folder: Path, **changes) -> None:
    data = {"problem_text": "Find x .", "choices": ["1", "2", "3", "4"], "answer": "C", "id": 5} | changes
    put(folder / "data.json", data)
    put(folder / "img_diagram.png", png((50, 50)))


def test_geometry3k_resolves_the_answer_from_its_letter(tmp_path):
    problem(tmp_path / "10")
    problem(tmp_path / "9", compact_text="Find x.", compact_choices=["1", "2", "\\frac{1}{2}", "4"])
    nine, ten = good("geometry3k", tmp_path)
    assert (nine.id, nine.question) == ("9", "Find x.\nChoices: (A) 1 (B) 2 (C) \\frac{1}{2} (D) 4")
    assert (nine.answer, ten.answer) == ("\\frac{1}{2}", "3")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"answer": "E"}, "bad answer"),
        ({"answer": ""}, "bad answer"),
        ({"choices": None}, "bad record"),
        ({"problem_text": " "}, "no question"),
    ],
)
def test_geometry3k_bad_problem_is_named(tmp_path, changes, reason):
    problem(tmp_path / "3", **changes)
    (row,) = SOURCES["geometry3k"].read(tmp_path)
    assert (row.id, row.reason) == ("3/data.json:1", reason)
    assert str(tmp_path / "3" / "data.json") in row.problem


def test_geometry3k_splits_and_hub_layout(tmp_path):
    problem(tmp_path / "train" / "7")
    problem(tmp_path / "test" / "2401")
    assert [row.id for row in good("geometry3k", tmp_path)] == ["7"]
    assert [row.id for row in good("geometry3k", tmp_path, split="test")] == ["2401"]
    columns = {
        "problem": ["<image>Find x."],
        "answer": ["3"],
        "id": [7],
        "choices": [["1", "3"]],
        "ground_truth": ["B"],
    }
    parquet(tmp_path / "hub" / "data" / "train-0.parquet", images=[structs(50)], **columns)
    (row,) = good("geometry3k", tmp_path / "hub")
    assert (row.id, row.question, row.answer) == ("7", "Find x.\nChoices: (A) 1 (B) 3", "3")


def test_align_anything(tmp_path):
    columns = {
        "question": ["q", "r", "s"],
        "response_1": ["one"] * 3,
        "response_2": ["two"] * 3,
        "overall_response": [1, 2, None],
    }
    parquet(tmp_path / "text-image-to-text" / "train_40k.parquet", image=structs(30, 31, 32), **columns)
    assert [row.answer for row in good("align_anything", tmp_path)] == ["one", "two", None]
    put(tmp_path / "files" / "images" / "1.png", png())
    line = {"question": "q", "image": "1.png", "response_1": "one", "response_2": "two", "overall_response": "2"}
    put(tmp_path / "files" / "val.json", [line])
    (row,) = good("align_anything", tmp_path / "files", split="validation")
    assert row.answer == "two"


def test_scienceqa(tmp_path):
    common = {"question": "Which?", "choices": ["a", "b"], "answer": 1, "hint": "Look.", "subject": "s"}
    problems = {
        "1": common | {"image": "image.png", "split": "train"},
        "2": common | {"image": None, "split": "train"},
        "3": common | {"image": "image.png", "split": "val"},
        "4": common | {"image": "image.png", "split": "train", "answer": 2},
    }
    put(tmp_path / "data" / "scienceqa" / "problems.json", problems)
    put(tmp_path / "data" / "scienceqa" / "images" / "train" / "1" / "image.png", png())
    first, second, fourth = SOURCES["scienceqa"].read(tmp_path)
    assert (first.id, first.question, first.answer) == ("1", "Look.\nWhich?\nChoices: (A) a (B) b", "b")
    assert load_image(first.picture).size == (30, 30)
    assert (second.id, second.picture, second.problem) == ("2", None, "")
    assert fourth.reason == "bad answer"
    assert [row.id for row in SOURCES["scienceqa"].read(tmp_path, split="validation")] == ["3"]
    columns = {key: [value] for key, value in common.items()}
    parquet(tmp_path / "hub" / "data" / "train-0.parquet", image=structs(40), **columns)
    (row,) = good("scienceqa", tmp_path / "hub")
    assert (row.answer, row.meta) == ("b", {"subject": "s"})
    parquet(tmp_path / "hub" / "ScienceQA-IMG" / "train-0.parquet", image=structs(41), **columns)
    (other,) = good("scienceqa", tmp_path / "hub")
    assert other.id != row.id  # the picture is part of what names a row without an id


def test_vlsbench(tmp_path):
    line = {
        "instruction_id": 4,
        "instruction": "q",
        "image_path": "imgs/4.png",
        "category": "c",
        "source": "generation",
    }
    put(tmp_path / "data.json", [line])
    put(tmp_path / "imgs" / "4.png", png())
    (row,) = good("vlsbench", tmp_path)
    assert (row.id, row.question, row.meta) == ("4", "q", {"category": "c", "picture_source": "generation"})
    parquet(tmp_path / "hub" / "train.parquet", instruction_id=[4], instruction=["q"], image=structs(30))
    assert [row.id for row in good("vlsbench", tmp_path / "hub")] == ["4"]


def test_mm_safetybench(tmp_path):
    question = {"Question": "a", "Rephrased Question": "b", "Rephrased Question(SD)": "c", "Phrase Type": "activity"}
    put(tmp_path / "data" / "processed_questions" / "06-Fraud.json", {"0": question, "1": {"Question": "a"}})
    for kind in ("SD", "SD_TYPO"):
        put(tmp_path / "data" / "imgs" / "06-Fraud" / kind / "0.jpg", png())
    row, incomplete = SOURCES["mm_safetybench"].read(tmp_path)
    assert (row.id, row.question, incomplete.reason) == ("Fraud/SD_TYPO/0", "b", "bad record")
    assert load_image(row.picture).size == (30, 30)
    assert row.meta == {"scenario": "Fraud", "phrase_type": "activity"}
    row, _ = SOURCES["mm_safetybench"].read(tmp_path, split="SD")
    assert (row.id, row.question) == ("Fraud/SD/0", "c")
    parquet(tmp_path / "hub" / "data" / "Fraud" / "SD_TYPO.parquet", id=["0"], question=["b"], image=structs(30))
    (same,) = good("mm_safetybench", tmp_path / "hub")
    assert same.id == "Fraud/SD_TYPO/0"


def test_vlguard(tmp_path):
    unsafe = {"instruction": "i", "response": "no"}
    pairs = [{"safe_instruction": "s", "response": "yes"}, {"unsafe_instruction": "u", "response": "no"}]
    lines = [
        {"id": "a", "image": "ads/1.png", "safe": True, "instr-resp": pairs},
        {"id": "b", "image": "ads/2.png", "safe": False, "harmful_category": "privacy", "instr-resp": [unsafe]},
        {"id": "c", "image": "ads/2.png", "safe": False, "instr-resp": []},
    ]
    put(tmp_path / "test.json", lines)
    with zipfile.ZipFile(tmp_path / "test.zip", "w") as file:
        for number in (1, 2):
            file.writestr(f"test/ads/{number}.png", png())
    safe, risky, bad_picture, empty = SOURCES["vlguard"].read(tmp_path, split="test")
    assert [(row.id, row.question, row.answer) for row in (safe, risky, bad_picture)] == [
        ("a/safe", "s", "yes"),
        ("a/unsafe", "u", None),
        ("b", "i", None),
    ]
    assert (empty.reason, bad_picture.meta["harmful_category"]) == ("no question", "privacy")
    assert all(load_image(row.picture).size == (30, 30) for row in (safe, risky, bad_picture))
    taken = SOURCES["vlguard"].read(tmp_path, split="test", where={"kind": "safe"})
    assert [row.id for row in taken] == ["a/safe", "test.json:3"]
    struct_pairs = [[{"safe_instruction": None, "unsafe_instruction": None, "instruction": "i", "response": "no"}]]
    parquet(tmp_path / "hub" / "train.parquet", **{"id": ["b"], "image": structs(30), "instr-resp": struct_pairs})
    assert [row.id for row in good("vlguard", tmp_path / "hub")] == ["b"]
