"""The trainer's attention: padded = packed = reference, in verl's engine, for text and picture rows packed together.

The engine is verl's real one on a CPU; a stand-in (varlen_kernel.py) takes the place of the CUDA kernel alone.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[1] / "support" / "attention_paths.py"
# Largest differences: nat for values; for gradients shares of the largest one, and of the length of all as one vector.
LIMITS = {
    "fp32": {"log_probs": 1e-5, "entropy": 1e-5, "gradients": 1e-5, "all_gradients": 1e-5},
    "bf16": {"log_probs": 1e-2, "entropy": 1e-2, "gradients": 2e-2, "all_gradients": 2e-2},
}


def run(folder: Path, size: str, cases: list[str]) -> dict:
    command = [sys.executable, str(PROGRAM), str(folder), size, *cases]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr[-3000:]
    return json.loads(answer.stdout.splitlines()[-1])


# A bf16 path may differ from fp32 as transformers' own bf16 model does, in multiples of that.
OF_BF16 = 1.5  # seen: padded 1.1, packed 1.25


def check(found: dict, cases: list[str]) -> None:
    for case in cases:
        limits = dict(LIMITS[case[:4]])
        if "bf16" in case:
            limits |= {name: OF_BF16 * found[case]["own"][name] for name in ("log_probs_rms", "all_gradients")}
        for path in ("padded", "varlen"):
            row = found[case][path]
            for name, limit in limits.items():
                assert row.get(name, 0) <= limit, (case, path, name, row, limit)
            assert row["old_log_probs"] == 0, "the update starts from a ratio of 1"
            assert row["parameters"] > 20
            assert not row["saved_config_names_kernels"], "a checkpoint must load where these kernels are not"
    # In each layer of text three micro-batches of two rows, forward (twice: checkpointing) and for the old log-probs.
    assert found["kernel"]["packed"] >= 3 * 3 * len(cases)
    assert found["kernel"]["windows"] >= 2 * len(cases)


@pytest.mark.integration
def test_padded_and_packed_equal_the_reference(tmp_path):
    cases = ["fp32-untied", "fp32-tied-lora", "bf16-tied", "fp32-tied-qwen3"]
    check(run(tmp_path, "small", cases), cases)


@pytest.mark.nightly
@pytest.mark.integration
def test_padded_and_packed_equal_the_reference_at_real_widths(tmp_path):
    """Qwen2.5-VL-3B's widths and heads, two layers of text and of vision, 4,000 words. About 3 GB.

    Not in bf16: at 2,048 wide it leaves 1 % of error in the last hidden states, and transformers' own eager and sdpa
    attention differ by 0.013 nat (rms) and 0.05 at most, each from the other and from fp32.
    """
    check(run(tmp_path, "wide", ["fp32-tied"]), ["fp32-tied"])
