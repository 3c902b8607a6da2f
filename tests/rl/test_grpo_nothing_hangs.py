"""A real GRPO run from which the rollout engine, the trainer worker and the tutor are taken, at three moments each.

It ends by itself every time, with who it was, why probably, and what to change; the same command then resumes it.
"""

import os
import subprocess

import pytest

from grpo_run import command, make_inputs
from safer_steer.store import read_jsonl
from sufferings import SMALL, STALL_S, suffer, sufferings

SAID = {
    "rollout engine": ("the rollout engine (vLLMHttpServer, process", "killed (signal 9)", "GiB", "max_num_seqs"),
    "trainer worker": (
        "the trainer worker (WorkerDict, process",
        "killed (signal 9)",
        "GiB",
        "ppo_micro_batch_size_per_gpu",
    ),
    "tutor": ("server teacher was killed (signal 9)", "GiB", "give it more memory"),
    "stop": (f"nothing has happened for {STALL_S} s", "rollout engine", "stopped by a signal: rollout engine"),
}


@pytest.mark.nightly
@pytest.mark.integration
@pytest.mark.timeout(20_000)
def test_nothing_hangs_and_everything_resumes(tmp_path):
    seed = int(os.environ.get("SEED", "0"))
    print(f"seed {seed}")
    make_inputs(tmp_path)
    for what in sufferings(seed):
        ended = suffer(tmp_path, what, f"safer_steer.stall_s={STALL_S}")
        print(what, ended)
        assert ended.code != 0, what
        for part in (*SAID["stop" if what.how == "stop" else what.role], "run the same command again"):
            assert part in ended.last_line, (what, ended.last_line)
    last = subprocess.run([*command(tmp_path), *SMALL], capture_output=True, text=True, check=False)
    assert last.returncode == 0, last.stderr
    assert [row["step"] for row in read_jsonl(tmp_path / "grpo" / "metrics.jsonl")] == [1, 2, 3]
