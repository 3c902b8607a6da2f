import base64
import json
from pathlib import Path

import pytest
from PIL import Image

from data_construction.sources import geometry3k, jsonl
from safer_steer.errors import UserError
from safer_steer.images import load_image

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "geometry3k"


def write(path: Path, *lines) -> Path:
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
    return path


def test_jsonl_takes_every_picture_form(tmp_path):
    Image.new("RGB", (30, 30)).save(tmp_path / "a.png")
    data = base64.b64encode((tmp_path / "a.png").read_bytes()).decode()
    forms = ["a.png", ["a.png"], {"bytes": None, "path": "a.png"}, f"data:image/png;base64,{data}"]
    path = write(tmp_path / "s.jsonl", *({"id": i, "image": form, "question": "q"} for i, form in enumerate(forms)))
    rows = list(jsonl.read(path, {}))
    assert [row.id for row in rows] == ["0", "1", "2", "3"]
    assert all(load_image(row.picture, root=row.root).size == (30, 30) for row in rows)


def test_jsonl_maps_fields_and_reaches_into_objects(tmp_path):
    path = write(tmp_path / "s.jsonl", {"uid": 7, "data": {"img": "x.png", "prompt": " q "}, "gold": 3})
    fields = {"id": "uid", "image": "data.img", "question": "data.prompt", "answer": "gold"}
    (row,) = jsonl.read(path, fields)
    assert (row.id, row.picture, row.question, row.answer) == ("7", "x.png", "q", "3")


def test_jsonl_bad_rows_carry_their_problem_and_the_rest_goes_on(tmp_path):
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
    rows = {row.id: row for row in jsonl.read(path, {})}
    problems = {key: row.problem for key, row in rows.items() if row.problem}
    assert set(problems) == {"line-1", "line-2", "mute", "two"}
    assert rows["good"].question == "q\u2028still one line"
    assert len(rows) == 7  # rows without an id are named by their content


def test_jsonl_unknown_field_or_missing_file_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="unknown name"):
        list(jsonl.read(write(tmp_path / "s.jsonl"), {"picture": "p"}))
    with pytest.raises(UserError, match="not found"):
        list(jsonl.read(tmp_path / "none.jsonl", {}))


def problem(folder: Path, **changes) -> None:
    folder.mkdir(parents=True)
    data = {"problem_text": "Find x .", "choices": ["1", "2", "3", "4"], "answer": "C", "id": 5} | changes
    (folder / "data.json").write_text(json.dumps(data))
    Image.new("RGB", (50, 50)).save(folder / "img_diagram.png")


def test_geometry3k_resolves_the_answer_from_its_letter(tmp_path):
    problem(tmp_path / "10")
    problem(tmp_path / "9", compact_text="Find x.", compact_choices=["1", "2", "\\frac{1}{2}", "4"])
    nine, ten = geometry3k.read(tmp_path, {})
    assert (nine.id, nine.question) == ("9", "Find x.\nChoices: (A) 1 (B) 2 (C) \\frac{1}{2} (D) 4")
    assert (nine.answer, ten.answer) == ("\\frac{1}{2}", "3")
    assert load_image(ten.picture, root=ten.root).size == (50, 50)


@pytest.mark.parametrize("changes", [{"answer": "E"}, {"answer": ""}, {"choices": None}, {"problem_text": " "}])
def test_geometry3k_bad_problem_is_named(tmp_path, changes):
    problem(tmp_path / "3", **changes)
    (row,) = geometry3k.read(tmp_path, {})
    assert row.id == "3"
    assert row.problem


def test_geometry3k_without_problems_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="no Geometry3K problem"):
        list(geometry3k.read(tmp_path, {}))


def test_geometry3k_reads_the_real_rows():
    if not SHARED.is_dir():
        pytest.skip("the real Geometry3K rows are not beside this checkout (../shared/data/geometry3k)")
    rows = list(geometry3k.read(SHARED, {}))
    assert [row.id for row in rows] == [str(number) for number in range(11, 21)]
    assert not any(row.problem for row in rows)
    assert [row.answer for row in rows[:4]] == ["80", "13", "9", "48"]
    assert all(load_image(row.picture, root=row.root).mode == "RGB" for row in rows)
