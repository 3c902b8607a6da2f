"""What stops a Stage III run before Ray starts, in words (case 24)."""

import pytest
from omegaconf import OmegaConf

from safer_steer.errors import UserError
from safer_steer_verl import main
from safer_steer_verl.local_ray import ray_options


def config(device="cpu", engine="vllm"):
    return OmegaConf.create(
        {
            "trainer": {"device": device},
            "actor_rollout_ref": {"rollout": {"name": engine}},
            "ray_kwargs": {"ray_init": {"num_cpus": 2, "runtime_env": None}},
        }
    )


def test_an_installed_engine_on_a_cpu_is_fine():
    main.preflight(config())


def test_an_engine_that_is_not_installed_is_named():
    with pytest.raises(UserError, match=r"no_such_engine .*rollout.name.* is not installed"):
        main.preflight(config(engine="no_such_engine"))


def test_cuda_without_a_gpu_says_which_config_would_do(monkeypatch):
    monkeypatch.setattr(main, "_has_gpu", lambda: False)
    with pytest.raises(UserError, match=r"no GPU is visible.*safer_steer_cpu"):
        main.preflight(config(device="cuda"))


def test_another_verl_is_refused(monkeypatch):
    monkeypatch.setattr(main.importlib.metadata, "version", lambda _: "0.1.0")
    with pytest.raises(UserError, match=r"verl 0\.1\.0 is installed, 0\.9\.1 is needed"):
        main.preflight(config())


def test_on_a_cpu_ray_gets_its_options_and_no_runtime_environment():
    assert ray_options(config()) == {"num_cpus": 2, "address": "local"}, "and not what RAY_ADDRESS names"
