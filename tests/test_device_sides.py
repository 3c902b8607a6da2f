"""What the code does on a GPU and on a CPU where no other test says so: the sides named in device_branches.yaml."""

import os

import pytest
import torch
from omegaconf import OmegaConf

from evaluation import config as evaluation_config
from evaluation import needs as evaluation_needs
from evaluation.config import EvaluationConfig, ServingConfig
from safer_steer import preflight, servers
from safer_steer.config import load_config
from safer_steer.errors import UserError
from safer_steer_verl.local_ray import ray_options
from safer_steer_verl.platform import vllm_metadata
from training.grpo import processes
from training.grpo import run as grpo_run
from training.grpo.config import load_config as load_grpo_config
from training.grpo.needs import needs as grpo_needs
from training.sft import arguments
from training.sft import run as sft_run
from training.sft.config import SftConfig
from training.sft.needs import needs as sft_needs

ADDRESS = "safer_steer.tutor.base_url=http://10.0.0.2:8000/v1"
GPU, CPU = "configs/grpo/qwen2_5_vl_3b.yaml", "configs/grpo/miniature.yaml"


@pytest.mark.parametrize(("path", "shim"), [(GPU, False), (CPU, True)], ids=["gpu", "cpu"])
def test_only_a_cpu_run_gets_the_cpu_platform(path, shim, tmp_path, monkeypatch):
    for name in ("VERL_PLATFORM", "VERL_USE_EXTERNAL_MODULES"):
        monkeypatch.delenv(name, raising=False)
    loaded = load_grpo_config(path, [ADDRESS])
    config = grpo_run.engine_config(loaded, tmp_path, loaded.config.safer_steer.tutor)
    ours = set(processes.environment(config, tmp_path)) - set(os.environ)
    assert ({"VERL_PLATFORM", "VERL_USE_EXTERNAL_MODULES"} <= ours) is shim
    assert any(name.startswith("VLLM_CPU") for name in ours) is shim


def test_on_a_gpu_rays_workers_get_verls_environment():
    config = {"trainer": {"device": "cuda"}, "ray_kwargs": {"ray_init": {"num_cpus": 2}}}
    options = ray_options(OmegaConf.create(config | {"actor_rollout_ref": {}}))
    assert options["num_cpus"] == 2
    assert {"NCCL_DEBUG", "VLLM_LOGGING_LEVEL"} & set(options["runtime_env"]["env_vars"])


@pytest.mark.parametrize("cpu", [True, False], ids=["cpu", "gpu"])
def test_a_vllm_server_is_started_for_its_device(cpu, monkeypatch):
    monkeypatch.setattr(servers, "has_cpu_engine", lambda: cpu)
    command, env = servers._vllm_command(servers.VllmConfig(checkpoint="org/model", max_model_len=64), "m")
    assert ("--enforce-eager" in command) is cpu
    assert ("--gpu-memory-utilization" in command) is not cpu
    assert any(name.startswith("VLLM_CPU") for name in env) is cpu


@pytest.mark.parametrize(("mode", "problems"), [("cpu", 0), ("gpu", 1)])
def test_a_gpu_is_asked_for_by_the_gpu_set_alone(mode, problems, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert len(preflight.device_problems(mode)) == problems


def test_what_a_run_needs_follows_its_device(tmp_path, monkeypatch):
    gpu, cpu = (grpo_needs(load_grpo_config(path, [ADDRESS]).config) for path in (GPU, CPU))
    assert (gpu.device, gpu.gpus, gpu.shm > 0) == ("cuda", 8, True)
    assert (cpu.device, cpu.gpus, cpu.shm) == ("cpu", 0, 0)
    gpu, cpu = (sft_needs(load_config(SftConfig, f"configs/sft/{n}.yaml", [])) for n in ("qwen2_5_vl_3b", "miniature"))
    assert (gpu.device, gpu.gpus > 0) == ("cuda", True)
    assert (cpu.device, cpu.gpus) == ("cpu", 0)
    config = load_config(EvaluationConfig, "configs/evaluation/miniature.yaml", [])
    for mode, device in (("gpu", "cuda"), ("cpu", "cpu")):
        monkeypatch.setattr(evaluation_needs, "installed_mode", lambda mode=mode: mode)
        found = evaluation_needs.needs(config)
        assert (found.device, found.gpus > 0) == (device, device == "cuda")


@pytest.mark.parametrize(
    ("visible", "tensor_parallel", "asked", "copies"),
    [(8, 1, None, 8), (8, 2, None, 4), (0, 1, None, 1), (1, 2, None, 1), (8, 1, 3, 3)],
)
def test_every_visible_gpu_holds_a_part_of_a_copy(visible, tensor_parallel, asked, copies, monkeypatch):
    monkeypatch.setattr(evaluation_config, "visible_gpus", lambda: visible)
    serving = ServingConfig(max_model_len=64, tensor_parallel=tensor_parallel, data_parallel=asked)
    assert serving.service("m", "checkpoint", 1, None).vllm.data_parallel == copies


def test_sft_without_its_gpu_ends_in_words(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = load_config(SftConfig, "configs/sft/miniature.yaml", []).model_copy(update={"device": "cuda"})
    with pytest.raises(UserError, match=r"no GPU is visible.*device=cpu"):
        sft_run._work(config)


@pytest.mark.parametrize(("device", "backend"), [("cpu", "gloo"), ("cuda", None)])
def test_deepspeed_is_told_its_backend_on_a_cpu_alone(device, backend, monkeypatch):
    import deepspeed.ops

    asked = []
    monkeypatch.setattr(deepspeed, "init_distributed", lambda dist_backend, **_: asked.append(dist_backend))
    monkeypatch.setattr(deepspeed.ops, "__compatible_ops__", {"deepspeed_shm_comm": True})
    arguments._start_deepspeed(device, 60)
    assert asked == [backend]
    assert deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] is (device == "cuda")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_trainer_uses_its_device(device, tmp_path):
    config = load_config(SftConfig, "configs/sft/miniature.yaml", [f"output={tmp_path}"])
    assert arguments.trl_config(config.model_copy(update={"device": device})).use_cpu is (device == "cpu")


@pytest.mark.parametrize(
    ("installed", "written"), [({"vllm": "0.24.0"}, False), ({}, False), ({"vllm-cpu": "0.24.0"}, True)]
)
def test_metadata_is_written_for_the_cpu_build_alone(installed, written, tmp_path, monkeypatch):
    monkeypatch.setattr(vllm_metadata, "installed_version", installed.get)
    assert (vllm_metadata.metadata_folder(tmp_path / "m") is not None) is written
    assert (tmp_path / "m" / "vllm-0.24.0+cpu.dist-info" / "METADATA").is_file() is written


@pytest.mark.integration
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_on_a_cpu_finished_rollouts_are_looked_for_more_often(device, monkeypatch):
    from safer_steer_verl import trainer

    def start(self, config):
        self.replay_buffer = type("Buffer", (), {"poll_interval": 2.0})()

    monkeypatch.setattr(trainer.PPOTrainerSync, "__init__", start)
    config = OmegaConf.create({"trainer": {"device": device, "v1": {"trainer_mode": "safer_steer"}}})
    interval = trainer.SaferSteerTrainer(config).replay_buffer.poll_interval
    assert interval == (trainer.POLL_S if device == "cpu" else 2.0)


@pytest.mark.integration
def test_the_reference_model_pins_no_memory_on_a_cpu_and_the_engine_is_one_for_both():
    from verl.workers.engine import EngineRegistry
    from verl.workers.engine.fsdp import transformer_impl

    from safer_steer_verl.platform import engine

    assert all(EngineRegistry._engines["language_model"]["fsdp2"][d] is engine.Engine for d in ("cpu", "cuda"))
    assert transformer_impl.CPUOffloadPolicy(pin_memory=True).pin_memory  # as on a GPU
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transformer_impl, "CPUOffloadPolicy", transformer_impl.CPUOffloadPolicy)  # put back afterwards
        engine.pin_no_memory()
        assert not transformer_impl.CPUOffloadPolicy(pin_memory=True).pin_memory
