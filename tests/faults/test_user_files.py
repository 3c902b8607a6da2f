"""Dialogue files that users write: read to the end and row by row, in evaluation, SFT, GRPO and exports alike."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from evaluation.benchmarks import read_benchmarks
from exports.config import ExportConfig
from exports.rows import Rows
from miniature.student import build_processor
from safer_steer.config import load_config
from safer_steer.dialogue import Dialogue
from safer_steer.errors import UserError
from safer_steer.row_files import BadRow, read_rows
from safer_steer.store import read_jsonl
from safer_steer_verl.settings import DataConfig
from training.grpo.plan import _turns
from training.grpo.prepare import PromptBuilder
from training.grpo.prepare import prepare as prepare_grpo
from training.sft.config import SftConfig
from training.sft.data import prepare as prepare_sft


def row(name="a", **changes) -> dict:
    turns = [{"user": f"{name}?", "assistant": "A square."}]
    found = {"id": name, "source": "t", "kind": "benign", "strategy": None, "images": ["a.png"], "turns": turns}
    return found | changes


LINES = "two\u2028lines \u0085 here"  # one line


def half(where: str) -> str:
    """A row with half of a surrogate pair, as JSON escapes it."""
    return json.dumps(row("half")).replace(f'"{where}": "', f'"{where}": "\\ud83d')


DEEP = json.dumps(row("d")).replace('"turns"', f'"meta": {{"x": {"[" * 400 + "]" * 400}}}, "turns"')
TWO = {"images": ["a.png", "b.png"], "turns": [{"user": "u", "assistant": "x", "images": [1]}]}
BAD = {  # a line -> reason, a word of the detail
    '{"id": "torn",': ("not JSON", "Expecting"),
    "[]": ("bad row", "dictionary"),
    "7": ("bad row", "7"),
    json.dumps(row(7)): ("bad row", "id: Input should be a valid string, got 7"),
    json.dumps(row("e", turns=[])): ("bad row", "turns: List should have at least 1 item"),
    json.dumps(row("k", kind="other")): ("bad row", "row 'k': kind: Input should be 'benign'"),
    json.dumps(row("i", turns=[{"user": "u", "images": [1]}])): ("bad row", "turns refer to picture(s) [1]"),
    json.dumps(row("d")).replace('"turns"', f'"meta": {{"x": {DEEP}}}, "turns"'): (
        "bad row",
        "row 'd': nested too deep",
    ),
    json.dumps(row("p") | TWO): ("picture not shown", "row 'p': no turn names picture 0 ('a.png')"),
    half("user"): ("text is not Unicode", "surrogate"),
    half("assistant"): ("text is not Unicode", "surrogate"),
    half("id"): ("text is not Unicode", "surrogate"),
    half("source"): ("text is not Unicode", "surrogate"),
    json.dumps(row("doubled")).replace('"user"', '"user": "v", "user"'): ("not JSON", "'user' stands twice"),
    "[" * 100_000: ("not JSON", "recursion"),
    '{"id": ' + "9" * 5000 + "}": ("not JSON", "digits"),
}


@pytest.fixture(scope="module")
def processor():
    return build_processor()


@pytest.fixture
def path(tmp_path):
    """A file of rows; below its folder lie two pictures, a broken one and a link to `up.png`, a picture above it."""
    folder = tmp_path / "rows"
    folder.mkdir()
    for name in ("a.png", "b.png", "../up.png"):
        Image.new("RGB", (84, 84)).save(folder / name)
    (folder / "broken.png").write_bytes(b"\x89PNG no picture")
    (folder / "link.png").symlink_to(tmp_path / "up.png")
    return folder / "data.jsonl"


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_lines_end_as_any_system_ends_them(path, ending):
    rows = [json.dumps(row("one\rword")), "torn", "", json.dumps(row("b"))]
    path.write_bytes(ending.join(rows).encode())
    found = [item.id for item in read_rows(path, Dialogue)]
    assert found == ["one\rword", "data.jsonl:2", "b"]


Read = tuple[dict[str, str], list[dict]]  # the first text of the rows that are kept, by id; the rejects


def by_sft(path: Path, processor) -> Read:
    found = prepare_sft(load_config(SftConfig, "configs/sft/miniature.yaml", [f"data={path}"]), processor)
    assert found.counts()["rejected"] == len(found.rejects)
    return {item["id"]: processor.tokenizer.decode(item["input_ids"]) for item in found.rows}, found.rejects


def by_grpo(path: Path, processor) -> Read:
    import pyarrow.parquet as pq

    data, output = DataConfig(source=str(path), max_pixels=7056), path.parent / "grpo"
    counts = prepare_grpo(PromptBuilder(processor, data, 200), [str(path)], output)
    rejects = list(read_jsonl(output / "train_rejects.jsonl"))
    assert counts["rejected"] == len(rejects)
    rows = pq.read_table(output / "train.parquet").to_pylist()
    return {item["extra_info"]["dialogue"]: item["prompt"][0]["content"] for item in rows}, rejects


def by_export(path: Path, processor) -> Read:
    config = load_config(ExportConfig, "configs/exports/default.yaml", [f"data={path}", "answer_format={}"])
    rows = Rows(config)
    return {item.id: item.exchanges[0].user for item in rows}, rows.rejects


def by_evaluation(path: Path, processor) -> Read:
    bad: list[BadRow] = []
    rows = read_benchmarks([str(path)], bad=bad)
    return {item.task_id: item.dialogue.turns[0].user for item in rows}, [item.as_dict() for item in bad]


READERS = {"sft": by_sft, "grpo": by_grpo, "export": by_export, "evaluation": by_evaluation}


@pytest.mark.parametrize("read", READERS.values(), ids=list(READERS))
def test_bad_rows_are_rejected_with_file_and_line_and_the_rest_is_read(read, path, processor):
    turns = [{"user": LINES, "assistant": LINES}]
    lines = [json.dumps(row("first", turns=turns), ensure_ascii=False), *BAD, "", json.dumps(row("last"))]
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())  # a mark before the first, no end after the last
    kept, rejects = read(path, processor)
    assert list(kept) == ["first", "last"]
    assert LINES in kept["first"]
    assert _turns([path]).total() == 2, "the plan of GRPO counts them too"
    assert [item["id"] for item in rejects] == [f"data.jsonl:{number}" for number in range(2, len(BAD) + 2)]
    for item, (number, (reason, said)) in zip(rejects, enumerate(BAD.values(), start=2), strict=True):
        assert (item["reason"], item["detail"].startswith(f"{path}:{number}: ")) == (reason, True), item
        assert said in item["detail"], item
        assert len(item["detail"]) < len(str(path)) + 400


@pytest.mark.parametrize("read", [by_sft, by_grpo, by_export])
@pytest.mark.parametrize(
    "name",
    [
        *("broken.png", "gone.png", "../up.png", "link.png", "/etc/passwd"),
        *("http://h/a.png", "data:image/png;base64,QUJD", "", "a\0b"),
    ],
)
def test_a_picture_that_is_no_picture_below_the_folder_rejects_its_row(read, name, path, processor):
    path.write_text("\n".join(map(json.dumps, [row("a"), row("b", images=[name]), row("c", images=[" a.png"])])))
    kept, rejects = read(path, processor)
    assert (list(kept), [item["id"] for item in rejects]) == (["a", "c"], ["b"])
    assert "picture" in rejects[0]["reason"]


def test_numbers_that_json_cannot_hold_are_nothing(path):
    path.write_text(json.dumps(row()).replace('"turns"', '"meta": {"x": NaN, "y": 1e999, "z": -Infinity}, "turns"'))
    (found,) = read_rows(path, Dialogue)
    assert found.meta == {"x": None, "y": None, "z": None}


def test_bytes_that_are_not_utf_8_and_files_that_are_none(path):
    path.write_bytes(json.dumps(row("a")).encode() + b'\n{"id": "caf\xe9"}\n' + json.dumps(row("b")).encode())
    first, bad, last = read_rows(path, Dialogue)
    assert (first.id, bad.reason, last.id) == ("a", "not JSON", "b")
    path.write_text(json.dumps(row("a")), encoding="utf-16")
    with pytest.raises(UserError, match="UTF-16; save it as UTF-8"):
        list(read_rows(path, Dialogue))
    with pytest.raises(UserError, match="file not found"):
        list(read_rows(path.with_name("none.jsonl"), Dialogue))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=50)
@given(
    lines=st.lists(
        st.dictionaries(st.sampled_from(["id", "source", "kind", "images", "turns", "meta", "x"]), VALUES).map(
            lambda changes: json.dumps(row() | changes)
        )
        | VALUES.map(json.dumps)
        | st.text(max_size=20).filter(lambda text: text.strip() and not set("\r\n\0") & set(text)),
        max_size=5,
    ),
    ended=st.booleans(),
)
def test_every_line_is_a_dialogue_or_a_bad_row(path, lines, ended):
    lines = [line for line in lines if line.encode("utf-8", "replace").strip()]
    path.write_bytes(b"\n" + "\n".join(lines).encode("utf-8", "replace") + (b"\n" if ended else b""))
    found = list(read_rows(path, Dialogue))
    assert len(found) == len(lines)
    for number, item in enumerate(found, start=2):
        assert isinstance(item, Dialogue) or item.id == f"data.jsonl:{number}"
        if isinstance(item, Dialogue):
            json.dumps(item.model_dump(), ensure_ascii=False).encode()
