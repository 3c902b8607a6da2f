"""Too little memory for an engine: the run says so with the log's end and what to change, and goes on with less."""

import re
from pathlib import Path

import pytest

from safer_steer import servers
from safer_steer.config import load_config
from safer_steer.errors import UserError
from safer_steer.runs import Run
from safer_steer.servers import ServiceConfig, start_services
from training.grpo.config import without_operational
from training.sft import run as sft
from training.sft.config import SftConfig

FULL = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB"
NO_CACHE = "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`"
KILLED = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"


@pytest.mark.parametrize("code", [f"raise SystemExit({FULL!r})", f"raise SystemExit({NO_CACHE!r})", KILLED])
def test_a_vllm_server_without_memory_says_what_to_lower(code, tmp_path, monkeypatch):
    monkeypatch.setattr(servers, "_command", lambda config: (["python3", "-c", code], {}))
    service = ServiceConfig(serves="m", vllm={"checkpoint": "none/none", "max_model_len": 64})
    with pytest.raises(UserError) as caught, start_services({"student": service}, tmp_path):
        pass
    text = str(caught.value)
    assert f"log {tmp_path / 'student.log'} ends: " in text
    assert "lower gpu_memory_utilization, max_model_len or max_num_seqs" in text
    if code == KILLED:
        assert "was killed (signal 9), mostly the kernel's doing when memory runs out" in text
    else:
        assert "memory" in text.partition("ends:")[2].partition("it ran")[0]


def test_an_old_attempts_log_is_not_taken_for_this_ones(tmp_path):
    (tmp_path / "student.log").write_text(FULL + "\n")
    service = ServiceConfig(serves="m", command=["python", "-c", "raise SystemExit('no such model')"])
    with pytest.raises(UserError, match="no such model") as caught, start_services({"student": service}, tmp_path):
        pass
    assert "memory" not in str(caught.value)


@pytest.mark.parametrize("code", [f"raise SystemExit({FULL!r})", KILLED])
def test_grpo_says_what_to_lower(code, run_engine, tmp_path):
    with pytest.raises(UserError) as caught:
        run_engine(code)
    text = str(caught.value)
    assert re.search(r"ended with code 1: torch\.OutOfMemoryError: CUDA|first process was killed \(signal 9\)", text)
    assert f"full log: {tmp_path / 'log' / 'verl.log'}" in text
    assert code == KILLED or "lower actor_rollout_ref." in text  # verl's first process holds no model
    assert re.search(r"continues from the last checkpoint|what is finished is kept", text)


def test_a_run_that_takes_less_memory_goes_on_where_it_was(tmp_path):
    def facts(gpu_memory, micro, offload, clip):
        sizes = {"ppo_micro_batch_size_per_gpu": micro, "fsdp_config": {"param_offload": offload}, "clip_ratio": clip}
        rollout = {"gpu_memory_utilization": gpu_memory}
        return without_operational({"actor_rollout_ref": {"actor": sizes, "rollout": rollout}})

    with Run.open(tmp_path, facts(0.9, 8, False, 0.2), stage="grpo"):
        pass
    with Run.open(tmp_path, facts(0.5, 1, True, 0.2), stage="grpo") as run:
        assert run.record["attempts"] == 2
    with pytest.raises(UserError, match=r"changed: config\.actor_rollout_ref\.actor\.clip_ratio 0.2 -> 0.3;"):
        Run.open(tmp_path, facts(0.5, 1, True, 0.3), stage="grpo")


@pytest.mark.parametrize("error", [RuntimeError(FULL), MemoryError(), RuntimeError("shape mismatch")])
def test_sft_says_what_to_lower(error, tmp_path, monkeypatch):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}")
    (tmp_path / "base" / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "data").mkdir()
    Path(tmp_path / "data" / "steer_sft.jsonl").touch()
    config = load_config(SftConfig, "configs/sft/miniature.yaml", [f"root={tmp_path}"])

    def work(_: SftConfig) -> None:
        raise error

    monkeypatch.setattr(sft, "_work", work)
    if "shape" in str(error):
        with pytest.raises(RuntimeError, match="shape mismatch"):
            sft.main(config)
        return
    with pytest.raises(UserError, match=r"training ran out of memory .*lower training\.per_device_batch_size"):
        sft.main(config)
