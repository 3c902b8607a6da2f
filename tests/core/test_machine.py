"""What a run needs against what is there: every check can say no, in words that name what, how much and what to do."""

import errno
import os
from pathlib import Path

import pytest

from safer_steer import machine
from safer_steer.errors import UserError
from safer_steer.machine import Needs
from safer_steer.model_shape import families, parameters, shape_of, tied


def needs(folder: Path, **values: object) -> Needs:
    return Needs(**{"device": "cpu", "folder": folder, **values})


def test_a_small_run_fits_and_leaves_no_trace(tmp_path):
    findings = machine.check(needs(tmp_path / "a" / "b", disk=1e6, host=1e6, shm=1e6))
    assert {finding.verdict for finding in findings} == {"ok"}, findings
    assert not list(tmp_path.iterdir())
    machine.require(needs(tmp_path))
    assert machine.plan_lines(needs(tmp_path)) == []


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"disk": 1e18, "disk_why": "3 checkpoints"}, "1,000,000,000.0 GB (3 checkpoints); free space"),
        ({"host": 1e18, "host_why": "weights"}, "host memory"),
        ({"device": "cuda", "gpus": 4096}, "needed: 4096 on each of 1 node"),
    ],
)
def test_too_small_is_said_with_both_numbers(values, said, tmp_path):
    with pytest.raises(UserError) as error:
        machine.require(needs(tmp_path, **values))
    assert said in str(error.value)
    assert any(said in line for line in machine.plan_lines(needs(tmp_path, **values)))


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
def test_a_folder_without_access(number, tmp_path, monkeypatch):
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(machine.os, "open", refuse)
    with pytest.raises(UserError, match=r"output folder.*give this user the right to write"):
        machine.require(needs(tmp_path / "out"))


def test_a_read_only_file_system_and_one_without_nameless_files(tmp_path, monkeypatch):
    def no_nameless(*_: object) -> int:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    with monkeypatch.context() as patch:
        patch.setattr(machine.os, "open", no_nameless)
        machine.require(needs(tmp_path / "out"))
    read_only = type("S", (), {"f_flag": os.ST_RDONLY})
    monkeypatch.setattr(machine.os, "statvfs", lambda _: read_only)
    found = machine.folder(needs(tmp_path / "out"))[0]
    assert (found.verdict, "mounted read-only" in found.found) == ("breaks", True)


def test_what_a_run_has_written_counts_as_its_space(tmp_path, monkeypatch):
    (tmp_path / "weights").write_bytes(b"x" * 2_000_000)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: type("U", (), {"total": 1, "free": 1e6}))
    assert machine.disk(needs(tmp_path, disk=2.5e6))[0].verdict == "ok"
    assert machine.disk(needs(tmp_path, disk=3.5e6))[0].verdict == "breaks"


def test_only_the_first_process_of_a_node_speaks(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    machine.require(needs(tmp_path, disk=1e18))


@pytest.mark.parametrize(
    ("name", "family"),
    [(f"Qwen2.5-VL-{size}", f"qwen2_5_vl_{size.lower()}") for size in ("3B", "7B")]
    + [(f"Qwen3-VL-{size}", f"qwen3_vl_{size.lower()}") for size in ("2B", "4B", "8B")],
)
def test_known_sizes_are_found_by_name(name, family):
    known = families()[family]
    for place in (f"Qwen/{name}-Instruct", f"outputs/{family}/sft/checkpoint"):
        assert (parameters(place), tied(place)) == (known.parameters, known.tie_word_embeddings)
        assert 0.05 < 1 - shape_of(place).parameters / known.parameters < 0.2, "the rest is the vision tower"


def test_parameters_of_a_folder_are_counted_in_its_files(tmp_path):
    import torch
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(3, 5), "b": torch.zeros((), dtype=torch.bfloat16)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"tie_word_embeddings": true}')
    assert parameters(None, str(tmp_path)) == 16
    assert tied(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"torn")
    assert parameters(str(tmp_path)) == 0
    assert parameters("outputs/quickstart/base") is None
