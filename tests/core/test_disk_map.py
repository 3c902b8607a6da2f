"""A map on disk behaves as a dict does, and its memory does not grow with its keys."""

import tracemalloc

from hypothesis import given, settings
from hypothesis import strategies as st

from safer_steer.disk_map import DiskMap

KEYS = st.one_of(st.text(max_size=5), st.integers(), st.just("lone \ud800 surrogate"))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.booleans(), KEYS, st.one_of(st.integers(0, 9), st.text(alphabet="ab", max_size=3)))))
def test_it_behaves_as_a_dict(steps):
    found, wanted = DiskMap(), {}
    for only_new, key, value in steps:
        if only_new:
            assert found.add(key, value) == (str(key) not in wanted)
            wanted.setdefault(str(key), value)
        else:
            found[key] = value
            wanted[str(key)] = value
    assert len(found) == len(wanted)
    assert {key: found.get(key) for key in wanted} == wanted
    assert all(key in found for key in wanted)
    assert "never put in" not in found
    assert found.get("never put in", "other") == "other"


def test_python_holds_nothing_for_a_key():
    found = DiskMap()
    found.add("first")
    tracemalloc.start()
    for number in range(20_000):
        found.add(f"stage1/train/{number}/benign")
    grown = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(found) == 20_001
    assert grown < 50_000  # bytes: 2.5 for a key, where a set of strings takes about 140
