"""Real samples of three data sets and miniature seeds through all three kinds, in one command."""

import os
from pathlib import Path

import pytest

from benchmarks.stage1_all_sources import main

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("SAFER_STEER_SHARED_DATA", ROOT.parent / "shared" / "data"))


@pytest.mark.skipif(
    not (SHARED / "vlguard").is_dir(),
    reason=f"the real rows are not in {SHARED}; set SAFER_STEER_SHARED_DATA to their folder",
)
def test_every_seed_of_every_source_is_kept_or_rejected_in_every_kind(capfd):
    assert main(["--data", str(SHARED), "--seeds", "4"]) == 0
    lines = capfd.readouterr().out.splitlines()
    for source in (
        "geometry3k   benign         10 in",
        "vlsbench     red_team       12 in",
        "miniature    benign          4 in",
    ):
        assert any(line.startswith(source) for line in lines), lines
