"""Whatever bytes or values a file holds, a source gives rows or rejects, never a crash."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_construction.sources import SOURCES
from data_construction.sources.records import READERS, read_records
from safer_steer.errors import ImageError
from safer_steer.images import load_image

QUICK = settings(max_examples=25)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
EXTRA = (
    "key",
    "split",
    "choices",
    "compact_choices",
    "compact_text",
    "problem",
    "problem_text",
    "instr-resp",
    "messages",
)
PAIRS = st.lists(st.dictionaries(st.sampled_from(["instruction", "safe_instruction", "response"]), VALUES), max_size=2)


@pytest.mark.parametrize("ending", READERS)
@QUICK
@given(data=st.binary(max_size=200) | st.text('{}[]",:\n a1\x00', max_size=200).map(str.encode))
def test_any_bytes_are_read(tmp_path, ending, data):
    path = tmp_path / f"s{ending}"
    path.write_bytes(data)
    for record in read_records(path):
        assert record.problem or isinstance(record.data, dict)


@pytest.mark.parametrize("name", [name for name in SOURCES if name != "jsonl"])
@QUICK
@given(data=st.data())
def test_any_values_are_read(tmp_path, name, data):
    source = SOURCES[name]
    theirs = {item for names in source.fields.values() for item in ([names] if isinstance(names, str) else names)}
    names = sorted({*theirs, *EXTRA, "overall_response", "hint", "Rephrased Question", "question", "answer"})
    record = data.draw(st.fixed_dictionaries({}, optional=dict.fromkeys(names, VALUES)))
    if name == "vlguard":
        record |= {"instr-resp": data.draw(PAIRS)}
    path = tmp_path / "train.json"
    path.write_text(json.dumps([record, {"id": "last"}]))
    rows = list(source.read(path))
    assert rows or name == "scienceqa"  # whose rows of another split are not its own
    for row in rows:
        assert isinstance(row.id, str)
        assert row.id
        assert row.problem or row.question
        if row.picture is not None:
            with pytest.raises(ImageError):
                load_image(row.picture)
