"""Who has died in a Ray job: killed actors and engines are named, actors that ended as they should are not."""

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref

import pytest
from omegaconf import OmegaConf

from safer_steer.deaths import MemoryLog
from training.grpo.failure import failure_message

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def job():
    """A Ray of this test's own, connected."""
    import ray

    from safer_steer_verl.local_ray import start_ray

    options = {"num_cpus": 2, "include_dashboard": False, "log_to_driver": False, "object_store_memory": 80 * 2**20}
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:  # short, for Ray's sockets
        options["_temp_dir"] = folder
        start_ray(OmegaConf.create({"trainer": {"device": "cpu"}, "ray_kwargs": {"ray_init": options}}))
        yield ray
        ray.shutdown()


def test_killed_actors_are_named_and_those_that_were_told_to_end_are_not(job):
    from safer_steer_verl.liveness import deaths

    class Actor:
        def pid(self):
            return os.getpid()

        def leave(self):
            import ray

            ray.actor.exit_actor()

    def make(name):
        return job.remote(num_cpus=0)(type(name, (Actor,), {"__qualname__": f"make.<locals>.{name}"})).remote()

    engine, worker, leaving, dropped, ended = map(make, ("vLLMHttpServer", "WorkerDict", "A", "B", "C"))
    pids = job.get([actor.pid.remote() for actor in (engine, worker, leaving, dropped, ended)])
    assert deaths() == []
    leaving.leave.remote()
    job.kill(ended)
    del dropped
    os.kill(pids[0], signal.SIGKILL)
    os.kill(pids[1], signal.SIGTERM)
    deadline = time.monotonic() + 120
    while len(deaths()) < 2 and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(2)
    found = {death.role: death for death in deaths()}
    assert found.keys() == {"rollout engine", "trainer worker"}, deaths()
    assert (found["rollout engine"].pid, found["rollout engine"].name) == (pids[0], "vLLMHttpServer")
    assert (found["rollout engine"].code, found["rollout engine"].detail) == (None, "")
    assert found["trainer worker"].name == "WorkerDict"
    assert "SIGTERM" in found["trainer worker"].detail


HANGS = """
import os, sys, time
import ray
from safer_steer_verl import main

@ray.remote(num_cpus=0)
class vLLMHttpServer:
    def pid(self):
        return os.getpid()

@ray.remote(num_cpus=0)
class TaskRunner:  # as verl's: it waits for an answer that never comes
    def run(self, config):
        self.engine = vLLMHttpServer.remote()
        open(sys.argv[3], "w").write(str(ray.get(self.engine.pid.remote())))
        time.sleep(10_000)

main.TaskRunner, main.preflight = TaskRunner, lambda config: None
sys.exit(main.main(sys.argv))
"""


def test_a_run_that_waits_for_ever_for_a_dead_engine_ends_with_its_name(tmp_path):
    """The process that starts verl, with a trainer that hangs as verl's does; the launcher's words about it."""
    code, config, reason, told = (tmp_path / name for name in ("hangs.py", "config.yaml", "failure.json", "pid"))
    code.write_text(HANGS.replace("sys.argv[3]", repr(str(told))))
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        options = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": 80 * 2**20, "_temp_dir": folder}
        config.write_text(OmegaConf.to_yaml({"trainer": {"device": "cpu"}, "ray_kwargs": {"ray_init": options}}))
        with (tmp_path / "verl.log").open("w") as log:
            run = subprocess.Popen([sys.executable, code, config, reason], stdout=log, stderr=log)
        while not (told.is_file() and told.read_text()) and run.poll() is None:
            time.sleep(0.2)
        assert run.poll() is None, (tmp_path / "verl.log").read_text()
        os.kill(int(told.read_text()), signal.SIGKILL)
        assert run.wait() == 1
    said = failure_message(1, reason, tmp_path / "verl.log", MemoryLog())
    assert said.startswith(f"the rollout engine (vLLMHttpServer, process {told.read_text()} on ")
    for part in ("as one that is killed (signal 9)", "GiB of this machine's memory", "max_num_seqs"):
        assert part in said


def test_an_engine_in_a_process_of_its_own_is_reported_with_its_exit_status(job):
    """VLLM's own manager, with a process that is killed before anybody could ask for its status."""
    from vllm.v1.engine.utils import CoreEngineProcManager

    from safer_steer_verl.liveness import deaths
    from safer_steer_verl.platform import engine_deaths

    engine_deaths.install()
    process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,), name="EngineCore")
    process.start()
    manager = CoreEngineProcManager.__new__(CoreEngineProcManager)
    manager.processes, manager.manager_stopped, manager.failed_proc_name = [process], threading.Event(), None
    manager._finalizer = weakref.finalize(manager, process.kill)
    assert manager.finished_procs() == {}, "it still runs"
    process.kill()
    multiprocessing.connection.wait([process.sentinel])
    assert manager.finished_procs() == {"EngineCore": -9}
    assert [(death.role, death.pid, death.code) for death in deaths()][:1] == [("rollout engine", process.pid, -9)]
