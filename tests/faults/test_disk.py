"""A full disk and an output that cannot be written: one line that names the file; with room again the run goes on."""

import os
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from miniature.teacher import create_app
from safer_steer.cli import exit_code
from safer_steer.errors import UserError
from safer_steer.failures import explain
from safer_steer.folder_lock import FILE
from safer_steer.images import ImageStore
from safer_steer.store import JsonlStore, read_jsonl, write_atomic

STAGES = ("data_construction", "evaluation")
# Bytes a file may have: the first rows fit, not all of them.
LIMITS = {"data_construction": (3000, 9000, 40000), "evaluation": (1500, 2500, 4000)}


@pytest.mark.parametrize("name", STAGES)
def test_a_full_disk_stops_the_run_in_one_line_and_costs_nothing(name, make_stage, serve, file_limit, tmp_path):
    url = serve(create_app())
    whole, stage = make_stage(name, url, tmp_path / "whole"), make_stage(name, url)
    assert whole().code == 0
    for size in LIMITS[name]:
        with file_limit(size):
            answer = stage()
        assert (answer.code, len(answer.errors)) == (2, 1), answer.stderr
        assert answer.errors[0].startswith("error: "), answer.stderr
        assert "disk" in answer.errors[0]
        assert str(tmp_path / "run") in answer.errors[0], "the file is named"
        assert "run the same command again" in answer.errors[0]
    answer = stage()
    assert answer.code == 0, answer.stderr
    assert stage.rows() == whole.rows()


def test_a_store_on_a_full_disk_keeps_every_whole_row(tmp_path, file_limit):
    rows = [{"id": str(n), "text": "é" * n} for n in range(40)]
    path = tmp_path / "rows.jsonl"

    def write() -> None:
        with JsonlStore(path) as store:
            for row in rows:
                store.append(row)

    for size in range(1, 400, 7):
        path.unlink(missing_ok=True)
        with pytest.raises(OSError, match=r"rows\.jsonl"), file_limit(size):
            write()
        assert path.stat().st_size <= size
        write()
        assert list(read_jsonl(path)) == rows


def test_a_file_is_replaced_whole_or_not_at_all_and_leaves_nothing_behind(tmp_path, file_limit):
    write_atomic(tmp_path / "run.json", "old")
    picture = Image.effect_noise((200, 200), 90).convert("RGB")
    store = ImageStore(tmp_path)
    with file_limit(100):
        with pytest.raises(OSError, match=r"run\.json"):
            write_atomic(tmp_path / "run.json", "new" * 1000)
        with pytest.raises(OSError, match=r"images/.*\.png"):
            store.put(picture)
    assert (tmp_path / "run.json").read_text() == "old"
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["run.json"]


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 256 KiB of its own, and its remount; skips where mounting is not allowed."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(disk)], capture_output=True)
    if mount.returncode:
        pytest.skip("mounting a small disk needs root with CAP_SYS_ADMIN; file_limit stands in for it elsewhere")

    def remount(options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True)

    yield disk, remount
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_real_disk_that_is_full_then_read_only_then_well(make_stage, serve, small_disk, tmp_path):
    disk, remount = small_disk
    url = serve(create_app())
    stage = make_stage("data_construction", url, disk / "run")
    answer = stage()
    assert (answer.code, len(answer.errors)) == (2, 1), answer.stderr
    assert "disk is full" in answer.errors[0] or "free disk space" in answer.errors[0]
    remount("ro,size=16m")
    answer = stage()
    assert (answer.code, len(answer.errors)) == (2, 1), answer.stderr
    assert f"no access to {stage.folder / FILE} (Read-only file system)" in answer.errors[0]
    remount("rw,size=16m")
    assert stage().code == 0
    whole = make_stage("data_construction", url, tmp_path / "whole")
    assert whole().code == 0
    assert stage.rows() == whole.rows()


def test_grpo_passes_on_what_the_engine_says_of_a_full_disk(run_engine):
    line = "OSError: [Errno 28] No space left on device: 'model_world_size_1_rank_0.pt'"
    with pytest.raises(UserError, match=r"verl ended with code 1: OSError: .*No space left.*; full log: .*verl\.log$"):
        run_engine(f"print({line!r}); raise SystemExit(1)")


@pytest.mark.parametrize("name", STAGES)
def test_a_file_in_the_place_of_the_output_folder_is_named(name, make_stage, tmp_path):
    stage = make_stage(name, "http://127.0.0.1:9/v1")
    stage.folder.parent.mkdir(parents=True)
    stage.folder.write_text("in the way")
    answer = stage()
    assert (answer.code, len(answer.errors)) == (2, 1), answer.stderr
    assert f"{stage.folder}: a file is where a folder should be" in answer.errors[0]


@pytest.mark.parametrize("name", ["sft", "grpo", "exports", "world"])
def test_a_folder_without_the_right_to_write_is_named(name, entry_points, monkeypatch, capsys):
    """At the edge of the system, so that it holds for root too."""
    real = Path.open

    def denied(path: Path, mode: str = "r", *rest: object, **named: object) -> object:
        if path.name == FILE:
            raise PermissionError(13, os.strerror(13), str(path))
        return real(path, mode, *rest, **named)

    monkeypatch.setattr(Path, "open", denied)
    folder, start = entry_points[name]
    assert exit_code(start) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: no access to {folder / FILE} (Permission denied)")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("[enforce fail] . PytorchStreamWriter failed writing file data/1: file write failed"), "disk is"),
        (Exception("Error while serializing: I/O error: No space left on device (os error 28)"), "disk is full"),
        (OSError(5, "Input/output error", "/x"), "the disk failed at /x (Input/output error)"),
        (OSError(24, "Too many open files", "/x"), "ulimit -n"),
        (MemoryError(), "out of memory"),
    ],
)
def test_other_libraries_words_for_it_are_understood(error, said):
    assert said in explain(error)
    wrapped = RuntimeError("the trainer failed")
    wrapped.__cause__ = error
    assert said in explain(wrapped)
    assert explain(RuntimeError("anything else")) is None
