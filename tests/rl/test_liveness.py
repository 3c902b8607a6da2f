"""Who has died in a Ray job: killed actors and engines are named, actors that ended as they should are not."""

import multiprocessing
import os
import signal
import tempfile
import threading
import time
import weakref

import pytest
from omegaconf import OmegaConf

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
        return job.remote(num_cpus=0)(type(name, (Actor,), {})).remote()

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
    assert "SIGTERM" in found["trainer worker"].detail


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
