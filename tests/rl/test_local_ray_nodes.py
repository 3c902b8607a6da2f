"""A named Ray cluster: one that cannot do the work ends the run with words, and its workers get our variables."""

import os

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
        if address:
            given = options["runtime_env"]["env_vars"]
            assert (given["PYTHONPATH"], given["VERL_PLATFORM"], given[processes.MARK]) == ("ours", "cpu", "run")
            assert "TUTOR_API_KEY" not in given
        else:
            assert "runtime_env" not in options
