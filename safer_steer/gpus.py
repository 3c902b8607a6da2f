"""The GPUs that this process may use and the NVIDIA driver below them, without importing an engine.

Command: python -m safer_steer.gpus      prints the number of visible GPUs: nvidia-smi's list after CUDA_VISIBLE_DEVICES
"""

import ctypes
import itertools
import os
import re
import subprocess
from pathlib import Path

from safer_steer.packages import installed_version

DRIVER_FILE = Path("/proc/driver/nvidia/version")
# CUDA's major version -> the oldest driver branch for it (CUDA Toolkit release notes, minor-version compatibility).
OLDEST_DRIVER = {12: 525, 13: 580}
_GPU = re.compile(r"^GPU \d+:.*\(UUID: (GPU-[^)\s]+)\)", re.MULTILINE)
_MIG = re.compile(r"^\s+MIG .*\(UUID: (MIG-[^)\s]+)\)", re.MULTILINE)


def visible_gpus() -> int:
    """How many GPUs a process started now can use."""
    return count_visible(_nvidia_smi("-L"), os.environ.get("CUDA_VISIBLE_DEVICES"))


def count_visible(listing: str, setting: str | None) -> int:
    """How many GPUs of a machine CUDA lets a process use.

    Args:
        listing: what `nvidia-smi -L` prints.
        setting: CUDA_VISIBLE_DEVICES: indices, or GPU-... or MIG-... names or their beginnings, separated by commas;
            None where it is unset.

    Returns:
        All GPUs where it is unset. Else the entries before the first one that names no GPU; none where one is named
        twice. Of the slices of a partitioned GPU (MIG) a process can use one only, so they count as one.
    """
    gpus, slices = _GPU.findall(listing), _MIG.findall(listing)
    if setting is None:
        return len(gpus)
    entries = [entry.strip() for entry in setting.split(",")]
    if entries[0].startswith("MIG-"):
        return int(_named(entries[0], slices) is not None)
    if entries[0].startswith("GPU-"):
        written = list(itertools.takewhile(lambda entry: entry.startswith("GPU-"), entries))
        chosen = [_named(entry, gpus) for entry in written]
    else:
        # CUDA reads the digits at the beginning of an entry, and ends at one that has none.
        digits = itertools.takewhile(bool, (re.match(r"\+?(\d+)", entry) for entry in entries))
        chosen = [int(found[1]) for found in digits if found]
        written = [str(index) for index in chosen]
    usable = list(itertools.takewhile(lambda index: index is not None and index < len(gpus), chosen))
    return len(usable) if len(set(written)) == len(written) and len(set(usable)) == len(usable) else 0


def _named(entry: str, names: list[str]) -> int | None:
    """The place of the one name that begins with `entry`."""
    found = [index for index, name in enumerate(names) if name.startswith(entry)]
    return found[0] if len(found) == 1 else None


def driver_version() -> str | None:
    """The installed NVIDIA driver, such as "535.104.05"; None where there is none."""
    said = _nvidia_smi("--query-gpu=driver_version", "--format=csv,noheader")
    if not (found := re.search(r"^\d+\.\d+\S*", said, re.MULTILINE)) and DRIVER_FILE.is_file():
        found = re.search(r"(?<=\s)\d+\.\d+(\.\d+)*(?=\s)", DRIVER_FILE.read_text(encoding="utf-8", errors="replace"))
    return found[0] if found else None


def installed_cuda() -> int | None:
    """CUDA's major version that the installed torch brings its libraries of; None where it brings none."""
    version = installed_version("nvidia-cuda-runtime") or installed_version("nvidia-cuda-runtime-cu12")
    return int(version.partition(".")[0]) if version else None


def driver_problem(cuda: int | None = None) -> str | None:
    """A sentence when this machine's driver is too old for CUDA `cuda` (default: the installed one's), else None.

    None also where there is no driver to judge: a login node.
    """
    cuda, version = cuda or installed_cuda(), driver_version()
    if cuda is None or version is None or int(version.partition(".")[0]) >= OLDEST_DRIVER.get(cuda, 0):
        return None
    if (offered := _driver_cuda()) is not None and offered >= cuda:  # CUDA's forward-compatibility package is in use
        return None
    return (
        f"the NVIDIA driver {version} is too old for CUDA {cuda}, which the pinned PyTorch and vLLM are built for: "
        f"{OLDEST_DRIVER[cuda]} or newer is needed; ask for a newer driver, or, on data-centre GPUs, put NVIDIA's "
        f"package cuda-compat-{cuda}-0 on LD_LIBRARY_PATH (README, Requirements)"
    )


def _driver_cuda() -> int | None:
    """CUDA's major version that the loaded driver library offers; unlike the kernel driver it can be replaced."""
    try:
        number = ctypes.c_int()
        failed = ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(number))
    except (OSError, AttributeError):
        return None
    return None if failed else number.value // 1000


def _nvidia_smi(*arguments: str) -> str:
    """What nvidia-smi prints; nothing where it is absent or fails."""
    try:
        said = subprocess.run(
            ["nvidia-smi", *arguments], capture_output=True, text=True, errors="replace", timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return said.stdout if said.returncode == 0 else ""


if __name__ == "__main__":
    print(visible_gpus())
