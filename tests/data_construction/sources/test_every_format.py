"""The same rows give the same seeds, rejects and counts from every format; what a format cannot hold is said here."""

import base64
import csv
import io
import json
import struct
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_construction.sources import SOURCES
from data_construction.sources.record import HowRead

GENERIC = SOURCES["generic"]
FIELDS = {"meta.note": "note"}
FORMATS = ("json", "jsonl", "csv", "tsv", "parquet")


def png(shade: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (30, 30), shade).save(buffer, "PNG")
    return buffer.getvalue()


TEXT = base64.b64encode(png(7)).decode()


def write(folder: Path, ending: str, rows: list[dict], encoding: str = "utf-8") -> Path:
    """The rows as a file of one format; a cell that is nothing is empty in tables of text."""
    path = folder / f"rows.{ending}"
    names = list(dict.fromkeys(name for row in rows for name in row))
    if ending == "parquet":
        columns = {name: pyarrow.array([row.get(name) for row in rows]) for name in names}
        pyarrow.parquet.write_table(pyarrow.table(columns), path, row_group_size=3)
    elif ending in ("json", "jsonl"):
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        text = "[" + ", ".join(lines) + "]" if ending == "json" else "".join(line + "\n" for line in lines)
        path.write_text(text, encoding=encoding, newline="")
    else:
        cells = [names, *([cell(row.get(name)) for name in names] for row in rows)]
        with path.open("w", encoding=encoding, newline="") as file:
            if ending == "csv":
                csv.writer(file).writerows(cells)
            else:
                file.write("".join("\t".join(line) + "\n" for line in cells))
    return path


def cell(value) -> str:
    if value is None or value != value:
        return ""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)


def seeds(path: Path, fields=FIELDS) -> tuple[list[tuple], int]:
    how: list[HowRead] = []
    found = []
    for row in GENERIC.read(path, fields, read=how):
        bytes_ = row.picture.read_bytes() if isinstance(row.picture, Path) and row.picture.is_file() else row.picture
        note = row.meta.get("note")
        name = "" if row.id.startswith("rows.") else row.id  # a rejected row without an id is named by its place
        note = None if note is None else str(note)
        found.append((name, row.question, row.answer, note, bytes_, row.reason if row.problem else ""))
    return found, how[0].rows


WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NASTY = st.sampled_from(
    ['"', '"open', 'say ""hi""', "'", "a,b;c|d", "<image>", "\ufeffx", "NaN", "null", "\u2028x", "\x00", "#1", "=1+1"]  # noqa: RUF005
    + ["a\\", "\\", "\\n", "[1]", "{}", "1e5", "  ", "é\u0301", "\U0001f600", "\x85", '{"a": 1}', "true", "7", "0"]
)
TEXTS = WORDS | NASTY | st.none()
MANY_LINES = st.sampled_from(["two\nlines", "a\tb", "a\r\nb", 'x"\n"y', "\n", '",\n"'])
PICTURES = st.sampled_from(
    ["a.png", "b.png", "gone.png", "a.png ", f"data:image/png;base64,{TEXT}", "", None, "../up.png", "http://h/a.png"]
)
OBJECTS = st.sampled_from([{"path": "a.png"}, {"bytes": TEXT}, {"path": None}, {"url": "b.png"}, None])
NOTES = {
    "text": st.nothing(),  # drawn as the other texts are
    "whole": st.none() | st.integers(-(2**63), 2**63 - 1),
    "float": st.none() | st.floats(allow_nan=True, allow_infinity=False),
    "truth": st.none() | st.booleans(),
}
QUICK = settings(max_examples=15)


def rows_of(texts, note, pictures, ids):
    row = {"image": pictures, "question": texts, "answer": texts, "note": note}
    return st.lists(st.fixed_dictionaries(row, optional={}), min_size=1, max_size=7).map(
        lambda rows: [{"id": f"{ids}{number}" if ids and number % 2 else None} | row for number, row in enumerate(rows)]
    )


@pytest.mark.parametrize("note", NOTES)
@pytest.mark.parametrize("pictures", [PICTURES, OBJECTS], ids=["names", "objects"])
@QUICK
@given(data=st.data())
def test_the_same_rows_from_every_format(tmp_path, note, pictures, data):
    for shade, name in enumerate(("a.png", "b.png")):
        (tmp_path / name).write_bytes(png(shade))
    lines = data.draw(st.booleans())
    texts = TEXTS | MANY_LINES if lines else TEXTS.filter(lambda text: not text or not set("\t\n\r") & set(text))
    notes = texts if note == "text" else NOTES[note]
    rows = data.draw(rows_of(texts, notes, pictures, data.draw(st.sampled_from(["", "row "]))))
    expected = None
    for ending in FORMATS:
        if ending == "tsv" and lines:
            continue  # a TSV cell holds no tab and no line break
        found, number = seeds(write(tmp_path, ending, rows))
        assert number == len(found) == len(rows), ending
        expected = expected or found
        assert found == expected, ending


LAYOUTS = {  # of rows as JSON, one document or several
    "one line": lambda rows: json.dumps(rows),
    "lines of a list": lambda rows: "[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n",
    "indented list": lambda rows: json.dumps(rows, indent=2),
    "indented rows": lambda rows: "\n".join(json.dumps(row, indent=2) for row in rows),
    "wrapped": lambda rows: json.dumps({"version": 1, "data": rows, "end": {"a": 1}}, indent=1),
    "lines": lambda rows: "\r".join(map(json.dumps, rows)),
    "files put together": lambda rows: "".join("\ufeff" + json.dumps(row) + "\n" for row in rows),
}


@pytest.mark.parametrize("ending", ["json", "jsonl"])
@QUICK
@given(rows=rows_of(TEXTS | MANY_LINES, TEXTS, PICTURES, "row "))
def test_json_in_any_layout(tmp_path, ending, rows):
    for shade, name in enumerate(("a.png", "b.png")):
        (tmp_path / name).write_bytes(png(shade))
    expected = seeds(write(tmp_path, "jsonl", rows))
    for name, layout in LAYOUTS.items():
        path = tmp_path / f"rows.{ending}"
        path.write_text(layout(rows), encoding="utf-8", newline="")
        assert seeds(path) == expected, name


def test_an_indented_row_that_is_torn_or_spoilt_anywhere_is_one_reject(tmp_path):
    rows = [{"id": str(n), "question": f"q {n}", "answer": "a", "meta": {"note": [n]}} for n in range(4)]
    texts = [json.dumps(row, indent=1) for row in rows]
    path = tmp_path / "rows.jsonl"
    for number, text in enumerate(texts):
        cuts = [text[:cut] for cut in range(1, len(text))]
        spoilt = [
            text.replace(value, "tru", 1) for value in (f'"{number}"', f'"q {number}"', '"a"', f"[\n   {number}\n  ]")
        ]
        for broken in [*cuts, *spoilt, text.replace('"answer"', '"id"')]:
            path.write_text("\n".join([*texts[:number], broken, *texts[number + 1 :]]))
            found = list(GENERIC.read(path))
            good = [
                {"id": r.id, "question": r.question, "answer": r.answer, "meta": r.meta} for r in found if not r.problem
            ]
            assert good == [*rows[:number], *rows[number + 1 :]], broken
            assert len(found) == 4, broken


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("ending", FORMATS[:4])
def test_text_of_any_unicode_encoding(tmp_path, ending, encoding):
    (tmp_path / "a.png").write_bytes(png())
    rows = [{"id": str(n), "image": "a.png", "question": f"{n} für \U0001f600?"} for n in range(3)]
    how: list[HowRead] = []
    found = list(GENERIC.read(write(tmp_path, ending, rows, encoding), read=how))
    assert [row.question for row in found] == [row["question"] for row in rows]
    assert how[0].encoding == encoding.upper().removesuffix("-SIG")


@pytest.mark.parametrize("ending", ["json", "jsonl"])
def test_one_cell_that_is_not_json_spoils_its_row_only(tmp_path, ending):
    lines = [f'{{"id": "{n}", "question": "q", "image": null}}' for n in range(6)]
    lines[1] = '{"id": "1", "question": "q", "answer": NaN}'
    lines[2] = '{"id": "2", "question": "q", "answer": tru}'
    lines[3] = '{"id": "3", "question": "q", "answer": ' + "9" * 5000 + "}"
    lines[4] = '{"id": "4", "question": "q", "question": "r"}'
    path = tmp_path / f"rows.{ending}"
    path.write_text("[" + ",\n".join(lines) + "]" if ending == "json" else "\n".join(lines))
    how: list[HowRead] = []
    rows = list(GENERIC.read(path, read=how))
    assert [row.id for row in rows if not row.problem] == ["0", "1", "5"]
    assert [row.reason for row in rows if row.problem] == ["bad record"] * 3
    assert "'question' stands twice" in rows[4].problem
    assert how[0].rows == 6


BROKEN = [
    '{"id": "b, "question": "q"}',
    '{"id": "b", "question": "q}',
    '{"id": "b", "question": "q"',
    '"id": "b", "question": "q"}',
    '{"id": "b", "question": "q"}}',
    '{"id": "b", "question": ["q"}',
    '{"id": "b", "question": "q"]}',
    '{"id": "b" "question": "q"}',
    '{"id": "b", "question": "q\\"}',
    "{'id': 'b'}",
    "7",
]


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_item_of_a_list_spoils_no_other(tmp_path, broken):
    good = [f'{{"id": "{name}", "question": "q"}}' for name in "acd"]
    lines = [good[0], broken, *good[1:]]
    (tmp_path / "s.json").write_text("[\n" + ",\n".join(f"  {line}" for line in lines) + "\n]\n")
    rows = list(GENERIC.read(tmp_path / "s.json"))
    assert [row.id for row in rows if not row.problem] == ["a", "c", "d"]
    assert {row.reason for row in rows if row.problem} == {"bad record"}
    assert len(rows) == (5 if broken.startswith('"id"') else 4)  # without its bracket it is two items


ROW, OTHER = '{"id": "a", "question": "q", "meta": {"x": 1}}', '{"id": "b", "question": "q"}'


@pytest.mark.parametrize(
    ("ending", "text", "names"),
    [
        ("json", f'{{"version": "1.0", "data": [{ROW}, {OTHER}], "licence": {{"name": "x"}}}}', ["a", "b"]),
        ("json", f'{{"rows": [\n{ROW},\n{OTHER}\n]}}', ["a", "b"]),
        ("jsonl", f'{{\n"data": [\n{ROW},\n{OTHER}\n]}}', ["a", "b"]),
        ("json", ROW, ["a"]),
        ("json", '{\n "meta": {"x": 1},\n "id": "a",\n "question": "q"\n}', ["a"]),
        ("jsonl", '{\n "id": "a",\n "question": "q"\n}', ["a"]),
        ("JSONL", f"{ROW}\n{OTHER}", ["a", "b"]),
        ("JSON", f"[{ROW}, {OTHER}]", ["a", "b"]),
        ("jsonl", f"[{ROW},\n {OTHER}]", ["a", "b"]),
        ("json", f"{ROW}\n{{torn\n{OTHER}", ["a", "s.json:2", "b"]),
        ("json", f"{{torn\n{ROW}\n{OTHER}", ["s.json:1", "a", "b"]),
        ("csv", "id;question;answer\na;q, or not;1,5\nb;q;2", ["a", "b"]),
        ("csv", "id|question\na|q;\nb|q", ["a", "b"]),
        ("CSV", "id\tquestion\na\tq\nb\tq", ["a", "b"]),
        ("csv", "id, question\na,q\nb,q\n\n", ["a", "b"]),
        *((ending, f"id{cut}question\ra{cut}q\rb{cut}q", ["a", "b"]) for ending, cut in (("csv", ","), ("tsv", "\t"))),
        *((ending, f"{ROW}\r{OTHER}\r", ["a", "b"]) for ending in ("jsonl", "json")),
        ("csv", "sep=;\r\nid;question\r\na;q, or not\r\nb;q", ["a", "b"]),
        ("csv", "\n\nid;question\na;q, or not\nb;q", ["a", "b"]),
        ("tsv", "question\tid\r\nq\ta\r\nq\tb\r\n", ["a", "b"]),
        ("csv", "\x1f\udc8b,\n\n", ["s.csv:1"]),
    ],
)
def test_layouts_that_people_have(tmp_path, ending, text, names):
    path = tmp_path / f"s.{ending}"
    path.write_text(text, newline="", errors="surrogateescape")
    assert [row.id for row in GENERIC.read(path)] == names
    assert len(list(GENERIC.read(tmp_path))) == len(names), "in a folder too"


def test_an_open_quote_rejects_its_row_only(tmp_path):
    lines = ["id,image,question", "1,a.png,fine", '2,a.png,"open', "3,a.png,fine", '4,a.png,"two', 'lines, ""quoted"""']
    lines += ["5,a.png,fine", '6,a.png,"shut" early', '7,a.png,in the "middle" it\'s text', '8,a.png,"open at the end']
    (tmp_path / "s.csv").write_text("\n".join(lines))
    how: list[HowRead] = []
    rows = list(GENERIC.read(tmp_path / "s.csv", read=how))
    assert [row.id for row in rows] == ["1", "s.csv:3", "3", "4", "5", "s.csv:8", "7", "s.csv:10"]
    assert rows[3].question == 'two\nlines, "quoted"'
    assert rows[6].question == 'in the "middle" it\'s text'
    assert how[0].rows == 8


def test_columns_that_nobody_maps_are_not_read(tmp_path):
    table = pyarrow.table(
        {
            "id": ["a", "b"],
            "question": ["q", "r"],
            "day": pyarrow.array([2932897, 1], pyarrow.int32()).cast(pyarrow.date32()),
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "s.parquet")
    assert [row.id for row in GENERIC.read(tmp_path / "s.parquet")] == ["a", "b"]
    bad, good = GENERIC.read(tmp_path / "s.parquet", {"meta.day": "day"})
    assert (bad.reason, good.meta) == ("bad record", {"day": "1970-01-02"})
    assert "column day cannot be read" in bad.problem
    assert len(list(GENERIC.read(tmp_path / "s.parquet", {"question": "none", "id": "none"}))) == 2


def test_cells_that_cannot_be_read_reject_their_rows(tmp_path):
    raw = pyarrow.array([b"fine", b"\xff", b"too"])
    text = pyarrow.Array.from_buffers(pyarrow.string(), 3, raw.buffers())
    late = pyarrow.array([2**62, 0, 0]).cast(pyarrow.timestamp("us"))
    table = pyarrow.table({"question": text, "late": late, "n": [1, 2, 3]})
    pyarrow.parquet.write_table(table, tmp_path / "s.parquet")
    rows = list(GENERIC.read(tmp_path / "s.parquet", {"meta.late": "late", "id": "n"}))
    assert [row.problem == "" for row in rows] == [False, False, True]
    binary = pyarrow.table({"question": raw, "id": ["a", "b", "c"]})  # text that its writer did not mark as text
    pyarrow.parquet.write_table(binary, tmp_path / "t.parquet")
    assert [row.question for row in GENERIC.read(tmp_path / "t.parquet")] == ["fine", "", "too"]


def test_a_damaged_part_of_a_parquet_file_rejects_its_rows(tmp_path):
    table = pyarrow.table({"id": [str(n) for n in range(90)], "question": [f"what {n}?" * 9 for n in range(90)]})
    pyarrow.parquet.write_table(table, tmp_path / "s.parquet", row_group_size=30, compression="zstd")
    column = pyarrow.parquet.ParquetFile(tmp_path / "s.parquet").metadata.row_group(1).column(1)
    data = bytearray((tmp_path / "s.parquet").read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    data[start : start + column.total_compressed_size] = bytes(column.total_compressed_size)
    (tmp_path / "s.parquet").write_bytes(data)
    how: list[HowRead] = []
    rows = list(GENERIC.read(tmp_path / "s.parquet", read=how))
    assert [row.id for row in rows if not row.problem] == [str(n) for n in range(90) if not 30 <= n < 60]
    assert how[0].rows == 90


def test_ids_are_made_of_what_the_picture_holds(tmp_path):
    for number, name in enumerate(("a", "b", "c")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(png(number % 2))
        row = {"image": "1.png", "question": "What colour is it?"}
        (tmp_path / name / "rows.jsonl").write_text(json.dumps(row) + "\n")
    a, b, c = (row.id for row in GENERIC.read(tmp_path))
    assert a != b
    assert a == c, "the same picture under another path"
    forms = [{"bytes": base64.b64encode(png(0)).decode()}, f"data:image/png;base64,{base64.b64encode(png(0)).decode()}"]
    for form in forms:
        (tmp_path / "d.jsonl").write_text(json.dumps({"image": form, "question": "What colour is it?"}))
        assert [row.id for row in GENERIC.read(tmp_path / "d.jsonl")] == [a]
    rows = [{"image": "gone.png", "question": "q"}, {"image": "lost.png", "question": "q"}]
    (tmp_path / "e.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert len({row.id for row in GENERIC.read(tmp_path / "e.jsonl")}) == 2


def test_a_torn_file_says_that_the_rest_is_lost(tmp_path):
    for text in ('[{"id": "a", "question": "q"}, {"id": "b", "que', '[{"id": "a", "question": "q"}, '):
        (tmp_path / "s.json").write_text(text)
        rows = list(GENERIC.read(tmp_path / "s.json"))
        assert [row.id for row in rows] == ["a", "s.json:2"]
        assert "the file ends" in rows[1].problem
    (tmp_path / "s.parquet").write_bytes(b"PAR1" + struct.pack("<I", 9))
    (row,) = GENERIC.read(tmp_path / "s.parquet")
    assert "not parquet" in row.problem


def test_numbers_that_only_some_formats_hold(tmp_path):
    """Infinity in `meta` is null, as JSON cannot hold it; in a table of text it is the text of the cell."""
    rows = [{"id": 2**70, "question": "q", "answer": float("inf"), "note": 2**80, "image": None}]
    for ending in ("json", "jsonl", "csv", "tsv"):
        ((name, _, answer, note, _, reason),) = seeds(write(tmp_path, ending, rows))[0]
        assert (name, answer, note, reason) == (str(2**70), "inf", str(2**80), "")
    path = tmp_path / "s.jsonl"
    path.write_text('{"id": 1, "question": "q", "answer": NaN, "note": -Infinity}\n')
    assert seeds(path)[0] == [("1", "q", None, None, None, "")]
