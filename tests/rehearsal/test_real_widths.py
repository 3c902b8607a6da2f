"""SFT, GRPO for two steps and evaluation at real widths on a CPU, with LoRA, each on the export of the one before it.
Many minutes; left out of a run without `-m nightly`.
"""

import re
import subprocess
from pathlib import Path

import pytest

from tiny_families import REAL_TOKENIZER

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.integration
@pytest.mark.nightly
@pytest.mark.timeout(7200)
def test_each_stage_starts_from_the_export_before_it(tmp_path):
    keys = ["layers=2", "rehearse.tokens=512"]
    keys += [f"rehearse.processor={REAL_TOKENIZER}"] if REAL_TOKENIZER else []
    command = ["bash", "benchmarks/real_widths.sh", "lora", "--out", str(tmp_path), *keys]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode in (0, 1), ended.stderr[-3000:]
    table = (tmp_path / "lora" / "table.md").read_text(encoding="utf-8")
    rows = [re.split(r" *(?<!\\)\| *", line)[1:] for line in table.splitlines() if line.startswith("|")]
    verdicts = {row[0]: row[3] for row in rows}
    for check in ("sft: two steps", "sft: resumed", "sft: export", "grpo: two steps", "grpo: token accounting"):
        assert verdicts[check] == "ok", table
    for check in ("grpo: rollout against trainer", "grpo: export", "evaluation: the dialogue with most pictures"):
        assert verdicts[check] == "ok", table
    broken = {check for check, verdict in verdicts.items() if verdict == "breaks"}
    assert broken <= {"grpo: tutor", "evaluation: judge"}, "stand-ins take the place of these two"
