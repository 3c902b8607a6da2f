"""What the scripts do on a node with GPUs, or a login node, with an nvidia-smi that lists two of an old driver."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LISTED = "".join(
    f"GPU {n}: NVIDIA A800-SXM4-80GB (UUID: GPU-{n}0000000-0000-0000-0000-000000000000)\\n" for n in (0, 1)
)


@pytest.fixture
def node(tmp_path):
    """Runs bash in a folder with this repository's scripts, where nvidia-smi lists two GPUs."""
    (tmp_path / "bin").mkdir()
    smi = tmp_path / "bin" / "nvidia-smi"
    smi.write_text(f'#!/bin/sh\nif [ "$1" = -L ]; then printf "{LISTED}"; else echo 535.104.05; fi\n', encoding="utf-8")
    smi.chmod(0o755)
    for name in ("scripts", "safer_steer", "training", "configs", "requirements.txt", "requirements-cpu.txt"):
        (tmp_path / name).symlink_to(ROOT / name)

    def run(command: str, *, gpus: bool = True, **environment: str) -> subprocess.CompletedProcess:
        env = {name: value for name, value in os.environ.items() if name not in ("VENV", "CUDA_VISIBLE_DEVICES")}
        path = f"{tmp_path / 'bin'}:{env['PATH']}" if gpus else env["PATH"]
        # `pwd` of a script is that of its link.
        command = command.replace("scripts/", f"{tmp_path}/scripts/")
        return subprocess.run(
            ["bash", "-c", command],
            cwd=tmp_path,
            env=env | {"PATH": path} | environment,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def chosen(node, **options) -> list[str]:
    shown = node('source scripts/cpu_set.sh; echo "$VENV|$CUDA_VISIBLE_DEVICES"', **options)
    assert shown.returncode == 0, shown.stderr
    return shown.stdout.strip().split("|")


def test_what_runs_on_a_cpu_has_an_environment_of_its_own_on_a_gpu_node(node, tmp_path):
    assert chosen(node) == [".venv-cpu", ""]
    assert chosen(node, gpus=False) == [".venv", ""], "a machine without a GPU, as in CI"
    assert chosen(node, VENV="mine") == ["mine", ""]
    (tmp_path / ".venv/lib/python3.11/site-packages/vllm-0.24.0.dist-info").mkdir(parents=True)
    assert chosen(node, gpus=False) == [".venv-cpu", ""], "a login node where .venv holds the GPU set"


@pytest.mark.parametrize(
    "command", ["quickstart.sh --dry-run", "run_tests.sh --version", "reproduce.sh miniature --dry-run"]
)
def test_readmes_commands_take_it(node, tmp_path, command):
    """Each ends at the missing environment, whose name it says; the GPU set's stays untouched."""
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / "python3").write_text("#!/bin/sh\nexit 1\n")  # no Python to make one with
    (tmp_path / "python3").chmod(0o755)
    shown = node(f"bash scripts/{command}", PYTHON=str(tmp_path / "python3"))
    assert shown.returncode == 2
    assert "VENV=.venv-cpu bash scripts/setup.sh cpu" in shown.stderr or "Python 3.11 or 3.12" in shown.stderr
    assert not list((tmp_path / ".venv/bin").iterdir())


@pytest.mark.parametrize(("setting", "processes"), [(None, 2), ("GPU-1", 1), ("7", 0)])
def test_gpus_are_counted_from_cuda_visible_devices(node, setting, processes):
    environment = {"VENV": sys.prefix} | ({} if setting is None else {"CUDA_VISIBLE_DEVICES": setting})
    shown = node("bash scripts/serve_tutor.sh --dry-run", **environment)
    assert f"--tensor-parallel-size {max(processes, 1)} " in shown.stdout, shown.stderr
    if not processes:
        refused = node("bash scripts/serve_tutor.sh", **environment)
        assert refused.returncode == 2
        assert f"CUDA_VISIBLE_DEVICES={setting}" in refused.stderr
