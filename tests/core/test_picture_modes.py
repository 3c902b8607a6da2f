"""No picture turns all black or all white without a word, whatever its mode and the scale of its values."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from safer_steer.errors import ImageError
from safer_steer.images import decode_image

SHAPE = (6, 7)
QUICK = settings(max_examples=60)


def saved(picture: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def shown(picture: Image.Image, kind: str = "TIFF", **options) -> np.ndarray:
    return np.asarray(decode_image(saved(picture, kind, **options)))


def png(width: int, height: int, depth: int, colour_type: int, rows: bytes, transparent: bytes) -> bytes:
    """A PNG of a depth that Pillow does not write, with a transparent colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"tRNS", transparent) + chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunks + chunk(b"IEND", b"")


def test_one_value_that_is_not_a_number_leaves_the_others_visible():
    values = np.linspace(0, 1, 42, dtype=np.float32).reshape(SHAPE)
    plain = shown(Image.fromarray(values))
    for odd in (np.nan, np.inf, -np.inf):
        spoilt = values.copy()
        spoilt[0, 0] = odd
        assert (shown(Image.fromarray(spoilt))[1:] == plain[1:]).all(), odd
    with pytest.raises(ImageError, match="finite"):
        shown(Image.fromarray(np.full(SHAPE, np.nan, dtype=np.float32)))


def test_whole_numbers_of_8_bits_in_32_stay_what_they_are():
    values = np.arange(0, 252, 6, dtype=np.int32).reshape(SHAPE)
    assert (shown(Image.fromarray(values))[..., 0] == values).all()
    assert shown(Image.fromarray(np.full(SHAPE, 255, dtype=np.int32))).min() == 255
    assert set(np.unique(shown(Image.fromarray((values > 99).astype(np.int32))))) == {0, 255}  # a mask of 0 and 1


def test_the_transparent_grey_of_a_16_bit_picture_is_white():
    values = np.full(SHAPE, 40_000, dtype=np.uint16)
    values[0, 0] = 7
    grey = shown(Image.fromarray(values), "PNG", transparency=7)
    assert (grey[0, 0].tolist(), grey[1, 1].tolist()) == ([255] * 3, [155] * 3)


@pytest.mark.parametrize("depth", [1, 2, 4, 16])
def test_the_transparent_colour_of_a_png_is_meant_in_the_files_depth(depth):
    rows = {1: b"\0\x40", 2: b"\0\x10", 4: b"\0\x03", 16: b"\0" + struct.pack(">6H", 9, 9, 9, 500, 600, 700)}[depth]
    transparent = struct.pack(">3H", 500, 600, 700) if depth == 16 else struct.pack(">H", {1: 1, 2: 1, 4: 3}[depth])
    first, second = np.asarray(decode_image(png(2, 1, depth, 2 if depth == 16 else 0, rows, transparent)))[0].tolist()
    assert (first, second) == ([0] * 3, [255] * 3)


def test_a_white_drawing_on_nothing_is_put_on_black():
    drawing = np.zeros((*SHAPE, 4), dtype=np.uint8)
    drawing[2:4, 2:4] = 255
    found = shown(Image.fromarray(drawing), "PNG")
    assert (found[0, 0].tolist(), found[2, 2].tolist()) == ([0] * 3, [255] * 3)
    drawing[..., :3] = np.arange(42).reshape(*SHAPE, 1)
    for faint in (0, 1):  # nothing, or written as 0 and 1
        drawing[..., 3] = np.arange(7) % 2 * faint
        with pytest.raises(ImageError, match="transparent"):
            shown(Image.fromarray(drawing), "PNG")


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_an_animation_that_begins_with_nothing_is_said(kind):
    nothing, drawing = Image.new("RGBA", (8, 8)), Image.new("RGBA", (8, 8), "red")
    buffer = io.BytesIO()
    nothing.save(buffer, kind, save_all=True, append_images=[drawing])
    with pytest.raises(ImageError, match="first frame"):
        decode_image(buffer.getvalue())


def test_one_huge_value_among_small_ones_is_said():
    values = np.linspace(0, 1, 42, dtype=np.float32).reshape(SHAPE)
    values[0, 0] = -3.4e38  # what map makers write where there is nothing
    with pytest.raises(ImageError, match="two of 256 grey levels"):
        shown(Image.fromarray(values))


GREYS = {
    "uint16": arrays.arrays(np.uint16, SHAPE, elements=st.integers(0, 65535)),
    "12 bits": arrays.arrays(np.uint16, SHAPE, elements=st.integers(0, 4095)),
    "8 bits": arrays.arrays(np.uint16, SHAPE, elements=st.integers(0, 255)),
    "int32": arrays.arrays(np.int32, SHAPE, elements=st.integers(-(2**31), 2**31 - 1)),
    "float": arrays.arrays(np.float32, SHAPE, elements=st.floats(width=32)),
    "shares": arrays.arrays(np.float32, SHAPE, elements=st.floats(0, 1, width=32) | st.just(np.nan)),
}


def nothing_to_see(finite: np.ndarray) -> bool:
    """Whether there is no value, or all of a scale of their own are within 0.5 % of its ends: black and white only."""
    if not finite.size:
        return True
    low, high = finite.min(), finite.max()
    share = (finite - low) / (high - low)
    return (low < 0 or high > 65535) and bool(((share < 0.005) | (share > 0.995)).all())


@pytest.mark.parametrize("kind", GREYS)
@QUICK
@given(data=st.data())
def test_grey_of_any_scale_is_seen_or_rejected(kind, data):
    values = data.draw(GREYS[kind])
    finite = values[np.isfinite(values.astype(np.float64))].astype(np.float64)
    try:
        found = shown(Image.fromarray(values))
    except ImageError:
        assert nothing_to_see(finite), finite
        return
    low, high = finite.min(), finite.max()
    if high - low > 0.1 * max(abs(low), abs(high)):  # a difference to see
        assert found.min() < found.max()
    order = np.argsort(values[np.isfinite(values.astype(np.float64))], kind="stable")
    assert (np.diff(found[..., 0][np.isfinite(values.astype(np.float64))][order].astype(int)) >= 0).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "La", "RGBa"])
@QUICK
@given(seed=st.integers(0, 2**31))
def test_noise_of_any_mode_stays_noise(mode, seed):
    bands = len(Image.new(mode, (1, 1)).getbands())
    noise = np.random.default_rng(seed).integers(0, 256, (*SHAPE, bands), dtype=np.uint8)
    size = (SHAPE[1], SHAPE[0])
    picture = Image.frombytes(mode, size, noise.tobytes()) if mode != "1" else Image.fromarray(noise[..., 0] > 127)
    if mode == "P":
        with pytest.raises(ImageError, match="palette"):  # of which it has none yet
            decode_image(picture)
        picture.putpalette(np.random.default_rng(seed).integers(0, 256, 768, dtype=np.uint8).tobytes())
    found = np.asarray(decode_image(picture))
    assert found.shape == (*SHAPE, 3)
    assert found.min() < found.max()
