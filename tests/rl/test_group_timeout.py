"""`nccl_timeout` reaches the trainer's process group: verl 0.9.1 has the key and does not read it."""

import os
import subprocess
import sys

import pytest

from safer_steer_verl.platform import GROUP_TIMEOUT

CODE = """
import torch
import torch.distributed as dist
from verl.workers import engine_workers
import safer_steer_verl.platform.engine
engine_workers.initialize_global_process_group_ray(timeout_second=None)  # as verl's TrainingWorker calls it
group = dist.distributed_c10d._get_default_group()
print("seconds", group._get_backend(torch.device("cpu")).options._timeout.seconds)
"""


@pytest.mark.integration
def test_the_process_group_has_the_configured_time_out(tmp_path):
    env = os.environ | {"VERL_PLATFORM": "cpu", "VERL_USE_EXTERNAL_MODULES": "safer_steer_verl.platform.cpu"}
    env |= {GROUP_TIMEOUT: "3600", "DIST_INIT_METHOD": f"file://{tmp_path}/meet"}
    answer = subprocess.run([sys.executable, "-c", CODE], env=env, capture_output=True, text=True, check=False)
    assert "seconds 3600" in answer.stdout, answer.stderr[-2000:]
