"""Hub ids: a download that is there is read like a folder; what is not there is said in one line."""

from pathlib import Path

import huggingface_hub.constants
import pytest

from data_construction.sources import SOURCES, hub
from safer_steer.errors import UserError

REVISION = "0" * 40


def cached(cache: Path, files: dict[str, bytes], hub_id: str = "sqrti/SPA-VL") -> None:
    """A data set as huggingface_hub keeps it: a snapshot of links to blobs."""
    folder = cache / f"datasets--{hub_id.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(REVISION)
    (folder / "blobs").mkdir()
    for number, (name, data) in enumerate(files.items()):
        (folder / "blobs" / str(number)).write_bytes(data)
        link = folder / "snapshots" / REVISION / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(folder / "blobs" / str(number))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", ["sqrti/SPA-VL", "hub:sqrti/SPA-VL", f"sqrti/SPA-VL@{REVISION}"])
def test_a_downloaded_data_set_is_read(cache, name):
    (cache / "x").write_bytes(b"not ours")
    line = (
        b'[{"id": 1, "image": "images/a.png", "question": "q"}, {"id": 2, "image": "../../../../x", "question": "q"}]'
    )
    cached(cache, {"train.json": line, "images/a.png": b"picture"})
    row, outside = SOURCES["spa_vl"].read(name)
    assert row.picture.read_bytes() == b"picture"  # a link to a blob beside the snapshot stays inside the download
    assert outside.reason == "picture outside the data folder"
    assert SOURCES["spa_vl"].count(name) == 2


@pytest.mark.parametrize("name", ["sqrti/SPA-VL", "nobody/nothing@v1", "data/vlsbench"])
def test_what_is_neither_local_nor_downloaded_is_a_user_error(cache, name):
    with pytest.raises(UserError, match="no local file or folder"):
        SOURCES["spa_vl"].count(name)
    with pytest.raises(UserError, match=r"correct sources\.\*\.path"):
        list(SOURCES["spa_vl"].read(name))  # the tests run with HF_HUB_OFFLINE=1


def test_only_the_files_of_the_split_are_downloaded(cache, monkeypatch):
    asked = {}

    def snapshot_download(hub_id, **options):
        asked.update(options | {"hub_id": hub_id})
        cached(cache, {"test.json": b'[{"id": "a", "image": "x.png", "instr-resp": [{"instruction": "q"}]}]'}, hub_id)
        return str(cache / "datasets--ys-zong--VLGuard" / "snapshots" / REVISION)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert [row.id for row in SOURCES["vlguard"].read("ys-zong/VLGuard@v2", split="test")] == ["a"]
    assert (asked["hub_id"], asked["revision"], asked["repo_type"]) == ("ys-zong/VLGuard", "v2", "dataset")
    assert {"test.json", "test.zip", "test/*"} <= set(asked["allow_patterns"])
    assert "train.json" not in asked["allow_patterns"]


def test_a_missing_folder_below_a_local_one_is_refused_but_hub_is_asked_by_name(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    asked = []
    monkeypatch.setattr(hub, "_download", lambda path, hub_id, *_: asked.append(hub_id))
    with pytest.raises(UserError, match="hub:data/mine"):
        hub.locate("data/mine", ["*"])
    assert asked == []
    hub.locate("hub:data/mine", ["*"])
    hub.locate("org/mine", ["*"])
    assert asked == ["data/mine", "org/mine"]
