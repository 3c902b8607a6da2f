"""One way to load a picture for teacher, trainer, rollout and judge: bytes, struct, path, data URL or PIL -> clean
RGB picture.

What a row says (`picture_field`) -> its file, below the folder of the row's file or in a picture store and nowhere else
(`picture_files`) -> decoded in full, first frame (`picture_decode`) -> 8-bit RGB, transparency on white
(`picture_pixels`) -> resized within `min_pixels`/`max_pixels` with both sides >= 28 and aspect ratio <= 200, the limits
of Qwen2.5-VL's processor.
"""

import base64
import hashlib
import io
import math
import os
import threading
from pathlib import Path
from typing import Any

from PIL import Image

from safer_steer.errors import ImageError
from safer_steer.picture_decode import clean, decode_bytes
from safer_steer.picture_field import unwrapped
from safer_steer.picture_files import is_stored, read_picture

MIN_SIDE = 28
MAX_ASPECT = 200
MIN_PIXELS = 28 * 28
MAX_PIXELS = 1280 * 28 * 28


def load_image(
    source: Any, *, root: Path | None = None, min_pixels: int = MIN_PIXELS, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Decodes and cleans one picture.

    Args:
        source: bytes, a path, a `data:` URL, a PIL picture, or an object with one of these, see `picture_field`.
        root: folder of the row that names the picture by a path, see `picture_file`; None for a path of our own.
        min_pixels: smallest area; smaller pictures are enlarged.
        max_pixels: largest area; larger pictures are reduced.

    Returns:
        An RGB picture whose sides are >= 28 px and whose aspect ratio is <= 200.

    Raises:
        ImageError: the picture is missing, unreadable, too large to decode or too elongated.
    """
    return fit_image(decode_image(source, root=root), min_pixels, max_pixels)


def decode_image(source: Any, *, root: Path | None = None) -> Image.Image:
    """The picture as RGB in its own size: everything `load_image` does but the resizing.

    Raises:
        ImageError: the picture is missing, unreadable or too large to decode.
    """
    value = source if isinstance(source, Path) else unwrapped(source)
    if value is None:
        raise ImageError("no picture: got neither bytes nor a path")
    if isinstance(value, Image.Image):
        return clean(value)
    if isinstance(value, str | Path):
        value = read_picture(value, root)
    if not isinstance(value, bytes | bytearray | memoryview):
        raise ImageError(
            f"a picture is bytes, a struct, a path, a data URL or a PIL picture; got {type(value).__name__}"
        )
    return decode_bytes(value)


def fit_image(picture: Image.Image, min_pixels: int = MIN_PIXELS, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The RGB picture resized into the limits that `load_image` promises.

    Raises:
        ImageError: it is too elongated.
    """
    width, height = picture.size
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError(f"picture is {width}x{height}: aspect ratio above {MAX_ASPECT}; crop it")
    scale = 1.0
    if width * height > max_pixels:
        scale = math.sqrt(max_pixels / (width * height))
    elif width * height < min_pixels:
        scale = math.sqrt(min_pixels / (width * height))
    if min(width, height) * scale < MIN_SIDE:
        scale = MIN_SIDE / min(width, height)
    if scale != 1.0:
        size = max(MIN_SIDE, math.ceil(width * scale)), max(MIN_SIDE, math.ceil(height * scale))
        if scale < 1.0:
            size = max(MIN_SIDE, math.floor(width * scale)), max(MIN_SIDE, math.floor(height * scale))
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    if max(picture.size) > MAX_ASPECT * min(picture.size):
        raise ImageError(
            f"picture is {picture.width}x{picture.height} after resizing: aspect ratio above {MAX_ASPECT}; crop it"
        )
    return picture


def png_bytes(picture: Image.Image) -> bytes:
    """The picture as PNG, without metadata."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def pixel_hash(picture: Image.Image) -> str:
    """16 hex digits of the SHA-256 of size and RGB pixels: equal pictures have equal hashes, whatever file they came
    from.
    """
    return hashlib.sha256(f"{picture.size}".encode() + picture.tobytes()).hexdigest()[:16]


class ImageStore:
    """Pictures stored once each under `root/images/`, named by their content."""

    def __init__(self, root: str | Path):
        self.root = Path(root)
        (self.root / "images").mkdir(parents=True, exist_ok=True)

    def put(self, picture: Image.Image) -> str:
        """Stores a clean RGB picture; returns its path relative to `root`."""
        relative = f"images/{pixel_hash(picture)}.png"
        path = self.root / relative
        if not path.exists():
            temporary = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}.tmp")  # others may store the same
            try:
                temporary.write_bytes(png_bytes(picture))
                temporary.replace(path)
            except OSError as error:
                temporary.unlink(missing_ok=True)
                error.filename = str(path)
                raise
        return relative


def image_data_url(source: str | Path | Image.Image) -> str:
    """A picture as a PNG data URL; a stored PNG is passed on byte for byte."""
    if isinstance(source, Image.Image):
        data = png_bytes(source)
    elif is_stored(Path(source)) and Path(source).is_file():
        data = Path(source).read_bytes()
    else:
        data = png_bytes(load_image(source))
    return "data:image/png;base64," + base64.b64encode(data).decode("ascii")
