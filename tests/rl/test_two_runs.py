"""Two GRPO runs on one machine share nothing that verl names by the Ray job."""

import subprocess
import sys

import pytest

# As a run does it: a Ray of its own, and a worker that asks for its job, from which verl names the weights' socket.
RUN = """
import sys, tempfile
import ray
from omegaconf import OmegaConf
from safer_steer_verl.local_ray import start_ray

options = {"num_cpus": 1, "include_dashboard": False, "log_to_driver": False, "object_store_memory": 80 * 2**20}
with tempfile.TemporaryDirectory(prefix="ray-") as folder:
    options["_temp_dir"] = folder
    start_ray(OmegaConf.create({"trainer": {"device": "cpu"}, "ray_kwargs": {"ray_init": options}}))
    print(ray.get(ray.remote(lambda: ray.get_runtime_context().get_job_id()).remote()), flush=True)
    sys.stdin.read()  # the other run is started while this one is there
    ray.shutdown()
"""


@pytest.mark.integration
def test_each_run_has_a_job_id_of_its_own():
    runs = [
        subprocess.Popen([sys.executable, "-c", RUN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        ids = [run.stdout.readline().strip() for run in runs]
        assert all(len(bytes.fromhex(one)) == 4 for one in ids)
        assert ids[0] != ids[1]
    finally:
        for run in runs:
            run.communicate("", timeout=120)
