"""GPUs are counted as CUDA counts them (PyTorch's own parser is the reference), and a driver too old is named."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safer_steer import gpus

torch = pytest.importorskip("torch")

UUIDS = [f"GPU-{number}0000000-aaaa-bbbb-cccc-00000000000{number}" for number in range(4)]
LISTING = "".join(f"GPU {n}: NVIDIA A800-SXM4-80GB (UUID: {uuid})\n" for n, uuid in enumerate(UUIDS))
SLICES = ["MIG-1f0d-1", "MIG-2f0d-2", "MIG-GPU-10000000-aaaa/1/0"]
SLICED = LISTING + "".join(f"  MIG 1g.10gb     Device  {n}: (UUID: {uuid})\n" for n, uuid in enumerate(SLICES))
ENTRIES = st.sampled_from(
    ["0", "1", "3", "4", "-1", "", " 2", "+1", "2x", "x", "NoDevFiles", *UUIDS, "GPU-1", "GPU-", "GPU-9", UUIDS[2][:12]]
)


def torchs_count(setting: str) -> int:
    """What PyTorch makes of the same list: its parser and its look-up, without a driver."""
    os.environ["CUDA_VISIBLE_DEVICES"] = setting
    chosen = torch.cuda._parse_visible_devices()
    if chosen and isinstance(chosen[0], str):
        return len(torch.cuda._transform_uuid_to_ordinals(chosen, UUIDS))
    return next((place for place, number in enumerate(chosen) if number >= len(UUIDS)), len(chosen))


@settings(max_examples=100)
@given(st.lists(ENTRIES, min_size=1, max_size=5).map(",".join))
def test_a_list_is_read_as_cuda_reads_it(setting):
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    try:
        assert gpus.count_visible(LISTING, setting) == torchs_count(setting)
    finally:
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
        if before is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = before


@pytest.mark.parametrize(
    ("listing", "setting", "count"),
    [
        (LISTING, None, 4),
        (SLICED, None, 4),
        ("", None, 0),
        ("No devices were found\n", None, 0),
        (SLICED, "MIG-1f0d-1", 1),
        (SLICED, "MIG-1f0d-1,MIG-2f0d-2", 1),  # a process can use one slice only
        (SLICED, "MIG-9", 0),
        (LISTING, "MIG-1f0d-1", 0),
    ],
)
def test_forms_that_clusters_set(listing, setting, count):
    assert gpus.count_visible(listing, setting) == count


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """Puts an nvidia-smi of a given driver on PATH; without a version, none."""

    def install(version: str | None) -> None:
        monkeypatch.setattr(gpus, "DRIVER_FILE", tmp_path / "version")
        monkeypatch.setenv("PATH", str(tmp_path))
        if version:
            (tmp_path / "nvidia-smi").write_text(f'#!/bin/sh\n[ "$1" = -L ] || echo {version}\n', encoding="utf-8")
            (tmp_path / "nvidia-smi").chmod(0o755)

    return install


@pytest.mark.parametrize(
    ("version", "cuda", "too_old"),
    [
        ("535.104.05", 13, True),
        ("580.65.06", 13, False),
        ("535.104.05", 12, False),
        ("470.82.01", 12, True),
        (None, 13, False),  # a login node: nothing to judge
    ],
)
def test_a_driver_too_old_is_named_with_what_is_needed(driver, version, cuda, too_old):
    driver(version)
    problem = gpus.driver_problem(cuda)
    assert bool(problem) is too_old
    if problem:
        for word in (version, f"CUDA {cuda}", str(gpus.OLDEST_DRIVER[cuda]), "cuda-compat"):
            assert word in problem


@pytest.mark.parametrize(
    "line",
    [
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023",
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  535.104.05  Release Build  (dvs-builder@U16)",
    ],
)
def test_the_driver_is_found_where_nvidia_smi_is_missing(driver, tmp_path, line):
    driver(None)
    (tmp_path / "version").write_text(f"{line}\nGCC version:  gcc version 12.3.0 (Ubuntu 12.3.0-1)\n", encoding="utf-8")
    assert gpus.driver_version() == "535.104.05"


def test_the_forward_compatibility_package_replaces_the_driver(driver, monkeypatch):
    driver("535.104.05")
    monkeypatch.setattr(gpus, "_driver_cuda", lambda: 13)
    assert gpus.driver_problem(13) is None
