"""Seed sources: name -> reader. A reader yields one `SourceRow` for each seed of a path, bad ones included.

To add a source, write `sources/NAME.py` with a `read(path, fields)` and add its line here.
"""

from data_construction.sources import geometry3k, jsonl
from data_construction.sources.row import SourceRow

READERS = {
    "jsonl": jsonl.read,
    "geometry3k": geometry3k.read,
}

__all__ = ["READERS", "SourceRow"]
