"""Seed sources: name -> `Source`, a data set declared in one file of its own.

    python -m data_construction.sources                                         # lists them
    python -m data_construction.sources check NAME path=PATH [data_split=SPLIT]  # reads one in full and reports on it

To add a source, write `sources/NAME.py` with a `SOURCE` and add its line here; docs/own_seeds.md shows how.
"""

from data_construction.sources import (
    align_anything,
    beavertails_v,
    generic,
    geometry3k,
    jailbreakv_28k,
    mm_safetybench,
    scienceqa,
    spa_vl,
    vlguard,
    vlsbench,
)
from data_construction.sources.row import SourceRow
from data_construction.sources.source import Source

SOURCES: dict[str, Source] = {
    "jailbreakv_28k": jailbreakv_28k.SOURCE,
    "spa_vl": spa_vl.SOURCE,
    "beavertails_v": beavertails_v.SOURCE,
    "geometry3k": geometry3k.SOURCE,
    "align_anything": align_anything.SOURCE,
    "scienceqa": scienceqa.SOURCE,
    "vlsbench": vlsbench.SOURCE,
    "mm_safetybench": mm_safetybench.SOURCE,
    "vlguard": vlguard.SOURCE,
    "generic": generic.SOURCE,
    "jsonl": generic.SOURCE,  # the same, by the name of its commonest file
}

__all__ = ["SOURCES", "Source", "SourceRow"]
