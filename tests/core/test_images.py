"""The picture loader on the odd pictures real data sets hold."""

import io

import numpy as np
import pytest
from PIL import Image

from safer_steer.images import ImageError, ImageStore, image_data_url, load_image


def encoded(picture: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def test_transparency_is_composited_on_white():
    hidden = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    assert load_image(encoded(hidden)).getcolors() == [(64 * 64, (255, 255, 255))]


def test_exif_rotation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert load_image(encoded(Image.new("RGB", (60, 30)), "JPEG", exif=exif)).size == (30, 60)


def test_sixteen_bit_is_scaled():
    grey = Image.fromarray(np.full((40, 40), 32768, dtype=np.uint16))
    assert load_image(encoded(grey)).getpixel((0, 0)) == (127, 127, 127)


def test_palette_cmyk_and_gif_become_rgb():
    assert load_image(encoded(Image.new("P", (40, 40)), "GIF")).mode == "RGB"
    assert load_image(encoded(Image.new("CMYK", (40, 40)), "JPEG")).mode == "RGB"
    assert load_image(encoded(Image.new("LA", (40, 40), (0, 0)))).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("size", [(27, 257), (1, 1), (257, 27), (3000, 2000), (28, 28), (5000, 26)])
def test_limits_hold_after_resizing(size):
    picture = load_image(encoded(Image.new("RGB", size)), max_pixels=256 * 28 * 28)
    assert min(picture.size) >= 28
    assert max(picture.size) <= 200 * min(picture.size)


def test_too_elongated_pictures_are_refused():
    with pytest.raises(ImageError, match="aspect ratio"):
        load_image(encoded(Image.new("RGB", (2000, 8))))


def test_every_kind_of_source_gives_the_same_picture(tmp_path):
    picture = Image.new("RGB", (40, 30), (1, 2, 3))
    (tmp_path / "cat.png").write_bytes(encoded(picture))
    sources = [
        encoded(picture),
        {"bytes": encoded(picture), "path": None},
        {"bytes": None, "path": "cat.png"},
        "cat.png",
        picture,
        image_data_url(picture),
    ]
    assert {load_image(source, root=tmp_path).tobytes() for source in sources} == {picture.tobytes()}


@pytest.mark.parametrize(
    "source", [None, "", {"bytes": None, "path": None}, "missing.png", b"no picture", "data:image/png;base64,%%"]
)
def test_bad_sources_are_named(source, tmp_path):
    with pytest.raises(ImageError):
        load_image(source, root=tmp_path)


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
