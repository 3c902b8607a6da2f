"""The paper in miniature, nightly size: one seed, the cells of C1 to C3; asserts only their direction.

    python -m pytest tests/reproduce/test_small.py -m nightly
About a quarter of an hour on two cores; left out of a run without `-m nightly`.
"""

import json
import subprocess

import pytest

from safer_steer.config import load_raw

SMALLER = {
    "seeds": ["bench=120"],
    "single_turn": ["count=24"],
    "data": ["sources.bench.limit=90", "assemble.bench.size=140"],
}


@pytest.mark.nightly
@pytest.mark.integration
@pytest.mark.timeout(5400)
def test_c1_to_c3_point_the_way_the_paper_says(tmp_path):
    config = tmp_path / "small.yaml"
    # YAML is a superset of JSON.
    config.write_text(json.dumps(load_raw("configs/reproduce/miniature.yaml") | SMALLER), encoding="utf-8")
    root = tmp_path / "run"
    options = ["--seeds", "1", "--only", "base,sft_single_turn,sft,grpo", "--root", str(root), "--config", str(config)]
    command = ["bash", "scripts/reproduce.sh", "miniature", *options]
    first = subprocess.run(command, capture_output=True, text=True, check=False)
    assert first.returncode == 0, first.stdout[-4000:] + first.stderr[-2000:]
    claims = json.loads((root / "claims.json").read_text(encoding="utf-8"))
    for claim, comparison in (("C1", "looks_safe"), ("C1", "collapses"), ("C2", "safe"), ("C3", "safe")):
        assert claims[claim]["evidence"][comparison]["value"] > 0, (claim, comparison, claims[claim])
    assert claims["C4"]["reason"].startswith("missing cells: grpo_no_bootstrapping")
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "11 of 11 steps are finished already" in again.stdout
    assert "start " not in again.stdout
