"""A named Ray cluster: one that cannot do the work ends the run with words, and its workers get our variables."""

import importlib.util
import os
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from safer_steer.errors import UserError
from safer_steer_verl import local_ray
from training.grpo import processes


def cluster(*sizes: tuple[int, int]) -> list[dict]:
    return [{"Alive": True, "Resources": {"GPU": float(gpus), "CPU": float(cpus)}} for gpus, cpus in sizes]


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ([(8, 26), (8, 64)], None),
        ([(8, 26)], "nodes have 8 GPU\\(s\\) and 26 CPUs; 2 with 8 GPU"),
        ([(8, 26), (4, 64)], "4 GPU\\(s\\) and 64 CPUs; 2 with 8"),
        ([(8, 26), (8, 4)], "4 CPUs; 2 with 8 GPU\\(s\\) and 26 CPUs each"),  # a batch system gave the step few
        ([], "have none"),
    ],
)
def test_nodes_are_waited_for_and_then_named(sizes, said, monkeypatch):
    monkeypatch.setattr(local_ray.ray, "nodes", lambda: cluster(*sizes))
    if said is None:
        local_ray.wait_for_nodes(2, 8, wait_s=0)
    else:
        with pytest.raises(UserError, match=said):
            local_ray.wait_for_nodes(2, 8, wait_s=-1)


def test_too_few_cpus_for_verl_are_said_at_once(monkeypatch):
    """It would wait for them for ever, and say nothing."""
    monkeypatch.setattr(local_ray.ray, "cluster_resources", lambda: {"CPU": 16.0, "GPU": 8.0})
    local_ray.check_cpus(4)
    with pytest.raises(UserError, match=r"16 CPUs here, and verl asks for 26.*n_gpus_per_node.*num_cpus=26"):
        local_ray.check_cpus(8)


def test_a_run_that_names_no_cluster_starts_its_own_with_retries_and_sizes(monkeypatch):
    """What RAY_ADDRESS names is another one's: Ray would take it, and refuse the sizes."""
    monkeypatch.setenv("RAY_ADDRESS", "10.9.9.9:6379")
    given = []

    def init(**options):
        given.append(options)
        if len(given) == 1:
            raise Exception("The current node timed out during startup")

    monkeypatch.setattr(local_ray.ray, "init", init)
    monkeypatch.setattr(local_ray.ray, "shutdown", lambda: None)
    monkeypatch.setattr(local_ray, "draw_job_id", lambda: None)
    monkeypatch.setattr(local_ray, "_end_children", lambda: None)
    monkeypatch.setattr(local_ray, "PAUSE_S", 0.0)
    local_ray.start_ray(OmegaConf.create({"trainer": {"device": "cpu"}, "ray_kwargs": {"ray_init": {"num_cpus": 6}}}))
    assert given == 2 * [{"num_cpus": 6, "address": "local"}]


def test_a_second_run_on_a_cluster_waits_for_one_that_is_ending_and_is_refused_else(monkeypatch):
    queue, other = dict(local_ray.QUEUE), {"name": "TransferQueueController", "namespace": "mine"}
    seen = [[other, queue], [other]]
    monkeypatch.setattr(local_ray.ray.util, "list_named_actors", lambda all_namespaces: seen.pop(0))
    monkeypatch.setattr(local_ray.time, "sleep", lambda _: None)
    local_ray.wait_for_other_run(wait_s=60)
    assert seen == []
    monkeypatch.setattr(local_ray.ray.util, "list_named_actors", lambda all_namespaces: [queue])
    with pytest.raises(UserError, match=r"another GRPO run is on the Ray cluster .* one at a time: .*RAY_PORT=6380"):
        local_ray.wait_for_other_run(wait_s=-1)


def test_transfer_queue_still_has_the_name_that_is_looked_for():
    found = importlib.util.find_spec("transfer_queue.interface")
    source = Path(found.origin).read_text(encoding="utf-8")
    assert f'name="{local_ray.QUEUE["name"]}", namespace="{local_ray.QUEUE["namespace"]}"' in source


def test_a_named_clusters_workers_get_the_runs_variables_and_no_key(monkeypatch):
    monkeypatch.setenv("TUTOR_API_KEY", "canary")
    env = {**os.environ, "PYTHONPATH": "ours", "VERL_PLATFORM": "cpu", processes.MARK: "run"}
    sizes = {"num_cpus": 6, "num_gpus": 1}
    for address in (None, "10.0.0.1:6379"):
        config = OmegaConf.create(
            {"trainer": {"device": "cpu"}, "ray_kwargs": {"ray_init": {"address": address, **sizes}}}
        )
        processes.hand_on(config, env)
        options = local_ray.ray_options(config)
        assert ("num_cpus" in options) == (address is None), "a cluster that is there has its sizes"
        assert options["address"] == (address or "local")
        if address:
            given = options["runtime_env"]["env_vars"]
            assert (given["PYTHONPATH"], given["VERL_PLATFORM"], given[processes.MARK]) == ("ours", "cpu", "run")
            assert "TUTOR_API_KEY" not in given
        else:
            assert "runtime_env" not in options
