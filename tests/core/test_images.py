"""The picture loader on the odd pictures real data sets hold."""

import base64
import io
import struct
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageOps

from safer_steer import images
from safer_steer.errors import ImageError
from safer_steer.images import ImageStore, image_data_url, load_image


def encoded(picture: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def test_transparency_is_composited_on_white():
    hidden = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    hidden.putpixel((3, 3), (0, 0, 255, 255))
    assert load_image(encoded(hidden)).getcolors() == [(64 * 64 - 1, (255, 255, 255)), (1, (0, 0, 255))]


def test_exif_rotation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert load_image(encoded(Image.new("RGB", (60, 30)), "JPEG", exif=exif)).size == (30, 60)


def test_truncated_file_is_refused():
    rng = np.random.default_rng(0)
    data = encoded(Image.fromarray(rng.integers(0, 255, (60, 60, 3), dtype=np.uint8)))
    with pytest.raises(ImageError, match="decoded"):
        load_image(data[: len(data) // 2])


def test_store_keeps_equal_pictures_once(tmp_path):
    store = ImageStore(tmp_path)
    first = store.put(Image.new("RGB", (30, 30), (9, 9, 9)))
    assert first == store.put(Image.new("RGB", (30, 30), (9, 9, 9)))
    assert len(list((tmp_path / "images").iterdir())) == 1
    assert load_image(first, root=tmp_path).getpixel((0, 0)) == (9, 9, 9)


def test_a_stored_picture_is_on_disk_before_it_has_its_name_and_an_empty_file_is_none(tmp_path, monkeypatch):
    store, picture, synced = ImageStore(tmp_path), Image.new("RGB", (30, 30), (9, 9, 9)), []
    monkeypatch.setattr(images.os, "fsync", lambda file: synced.append([*(tmp_path / "images").glob("*.png")]))
    path = tmp_path / store.put(picture)
    assert synced == [[]]
    whole = path.read_bytes()
    path.write_bytes(b"")  # as a power cut leaves it
    store.put(picture)
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "source",
    [
        *(None, "", "missing.png", b"no picture", "data:image/png;base64,%%", {"bytes": None, "path": None}, "/dev"),
        *("a\0b.png", "x" * 5000, 7, ["a.png"], {"bytes": [137, 80]}, {"bytes": "%%"}),
    ],
)
def test_what_is_no_picture_at_all_is_an_image_error(source, tmp_path):
    for root in (None, tmp_path):
        with pytest.raises(ImageError):
            load_image(source, root=root)


def test_huge_pictures_are_refused_before_they_are_decoded(monkeypatch, tmp_path):
    monkeypatch.setattr("safer_steer.picture_decode.MAX_DECODED_PIXELS", 100 * 100)
    with pytest.raises(ImageError, match="above 10,000 pixels"):
        load_image(encoded(Image.new("L", (101, 100))))
    assert load_image(encoded(Image.new("L", (100, 100)))).size == (100, 100)
    (tmp_path / "a.png").write_bytes(encoded(Image.new("L", (40, 40))))
    monkeypatch.setattr("safer_steer.picture_decode.MAX_FILE_BYTES", 10)
    with pytest.raises(ImageError, match="above"):
        load_image("a.png", root=tmp_path)


def test_a_broken_exif_block_names_no_rotation():
    block = bytes.fromhex(  # the block of a rotated picture with the type of one field changed
        "4578696600004d4d002a00000008000301290002000000046162630001120003000000010006000087690004000000010000003200000000"
        "000190030002000000050000004400000000323032300000"
    )
    picture = Image.open(io.BytesIO(encoded(Image.new("RGB", (60, 30)), "JPEG", exif=block)))
    with pytest.raises(struct.error):
        ImageOps.exif_transpose(picture)
    assert load_image(picture).size == (60, 30)


def test_two_processes_may_store_the_same_picture_at_once(tmp_path):
    store, picture = ImageStore(tmp_path), Image.effect_noise((200, 200), 50).convert("RGB")
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(store.put, [picture] * 40))) == 1
    assert [path.suffix for path in (tmp_path / "images").iterdir()] == [".png"]


def test_only_stored_pictures_are_passed_on_byte_for_byte(tmp_path):
    path = tmp_path / "big.png"
    Image.new("RGBA", (3000, 1500), (255, 0, 0, 128)).save(path)
    sent = decoded(image_data_url(path))
    assert sent.mode == "RGB"
    assert sent.size == load_image(path).size != (3000, 1500)
    stored = tmp_path / ImageStore(tmp_path).put(Image.new("RGB", (60, 60), "blue"))
    assert base64.b64decode(image_data_url(stored).partition(",")[2]) == stored.read_bytes()


def decoded(url: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
