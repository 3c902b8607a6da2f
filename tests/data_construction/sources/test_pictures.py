"""Pictures of a data folder: found in folders and archives, never outside the folder, never too large."""

import io
import tarfile
import unicodedata
import zipfile

import pytest

from builders import png
from data_construction.sources.archives import Archive
from data_construction.sources.pictures import Pictures
from data_construction.sources.row import BadRow
from safer_steer.errors import ImageError, UserError
from safer_steer.images import load_image


@pytest.fixture
def root(tmp_path):
    (tmp_path / "secret.png").write_bytes(png())
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "a.png").write_bytes(png())
    return folder


def test_relative_to_the_record_file_the_data_folder_or_a_picture_folder(root):
    pictures = Pictures(root, folders=["images"])
    found = [
        pictures.find("../images/a.png", root / "meta"),
        pictures.find("images/a.png", root),
        pictures.find("a.png", root),
    ]
    assert {path.resolve() for path in found} == {root / "images" / "a.png"}


def test_a_name_in_the_working_directory_is_not_taken(root, monkeypatch):
    monkeypatch.chdir(root.parent)
    with pytest.raises(ImageError, match="not found"):
        load_image(Pictures(root).find("secret.png", root))


def make_zip(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)


def make_tar(path, members):
    with tarfile.open(path, "w") as file:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_pictures_are_read_out_of_archives_in_place(root, make):
    make(
        root / "test.zip",
        {"VLGuard/test/bad_ads/b.png": png((40, 40)), "VLGuard/c.png": png((50, 50)), "VLGuard/x.txt": b"no"},
    )
    pictures = Pictures(root, folders=["test"], archives=["test.zip", "absent.tar"])
    assert load_image(pictures.find("bad_ads/b.png", root)).size == (40, 40)
    assert load_image(pictures.find("c.png", root)).size == (50, 50)
    assert sorted(path.name for path in root.iterdir()) == ["images", "test.zip"]
    with pytest.raises(BadRow) as missing:
        pictures.find("d.png", root / "images")
    places = ", ".join(str(root / name) for name in ("images", "", "test", "test.zip"))
    assert missing.value.detail == f"picture not found: 'd.png'; looked for in {places}"
    pictures.close()


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_members_are_found_however_their_names_are_spelt(root, make):
    make(root / "a.zip", {unicodedata.normalize("NFD", "Füße/ä.png"): png((40, 40))})
    pictures = Pictures(root, archives=["a.zip"])
    for name in ("Füße/ä.png", unicodedata.normalize("NFD", "Füße/ä.png"), " Füße/ä.png ", "F%C3%BC%C3%9Fe/ä.png"):
        spelt = f"file:{name}" if "%" in name else name
        assert load_image(pictures.find(spelt, root)).size == (40, 40), name
    pictures.close()


def test_a_damaged_member_is_rejected_and_a_damaged_archive_named(root):
    make_zip(root / "a.zip", {"a.png": png()})
    data = bytearray((root / "a.zip").read_bytes())
    data[40] ^= 0xFF
    (root / "a.zip").write_bytes(data)
    with pytest.raises(BadRow, match="cannot be read"):
        Pictures(root, archives=["a.zip"]).find("a.png", root)
    (root / "a.zip").write_bytes(b"no archive")
    with pytest.raises(UserError, match="no zip and no uncompressed tar"):
        Pictures(root, archives=["a.zip"])


def test_an_archive_bomb_is_not_unpacked(root, monkeypatch):
    monkeypatch.setattr("safer_steer.picture_decode.MAX_FILE_BYTES", 1000)
    make_zip(root / "a.zip", {"a.png": bytes(2000)})
    with pytest.raises(BadRow, match="is above"):
        Archive(root / "a.zip").read("a.png")
