"""One way to load a picture for teacher, trainer, rollout and judge: bytes, struct, path, data URL or PIL -> clean
RGB picture.

What a row says (`picture_field`) -> its file, below the folder of the row's file or in a picture store and nowhere else
(`picture_files`) -> decoded in full, first frame (`picture_decode`) -> 8-bit RGB, transparency on white
(`picture_pixels`) -> resized to what a model family sees, or for the store (`picture_size`).
"""

import base64
import hashlib
import io
import os
import threading
from pathlib import Path
from typing import Any

from PIL import Image

from safer_steer.errors import ImageError
from safer_steer.picture_decode import clean, decode_bytes
from safer_steer.picture_field import unwrapped
from safer_steer.picture_files import is_stored, read_picture
from safer_steer.picture_size import PictureSize, stored_size


def load_image(source: Any, *, root: Path | None = None, size: PictureSize | None = None) -> Image.Image:
    """Decodes and cleans one picture.

    Args:
        source: bytes, a path, a `data:` URL, a PIL picture, or an object with one of these, see `picture_field`.
        root: folder of the row that names the picture by a path, see `picture_file`; None for a path of our own.
        size: the sizes that a model sees; None for the size at which the picture is stored.

    Returns:
        An RGB picture whose sides are >= 28 px and whose aspect ratio is <= 200.

    Raises:
        ImageError: the picture is missing, unreadable, too large to decode or too elongated.
    """
    return fit_image(decode_image(source, root=root), size)


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


def fit_image(picture: Image.Image, size: PictureSize | None = None) -> Image.Image:
    """The RGB picture at the size that a model sees, or at which it is stored (`size` None).

    Raises:
        ImageError: it is too elongated.
    """
    try:
        fitted = size.fit(*picture.size) if size else stored_size(*picture.size)
    except ValueError as error:
        raise ImageError(str(error)) from error
    return picture if fitted == picture.size else picture.resize(fitted, Image.Resampling.BICUBIC)


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
        if not (path.is_file() and path.stat().st_size):  # a power cut may have left an empty one
            temporary = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}.tmp")  # others may store the same
            try:
                with temporary.open("wb") as file:
                    file.write(png_bytes(picture))
                    file.flush()
                    os.fsync(file.fileno())
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
