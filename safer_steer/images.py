"""One way to load a picture for teacher, trainer, rollout and judge: bytes, struct, path, data URL or PIL -> clean
RGB picture.

Full decode, EXIF rotation applied, transparency composited on white, 16-bit scaled, first frame, RGB, resized within
`min_pixels`/`max_pixels` with both sides >= 28 and aspect ratio <= 200, the limits of Qwen2.5-VL's processor.
Files above `MAX_FILE_BYTES` and pictures above `MAX_DECODED_PIXELS` are refused before they are decoded. What a row
names is looked up below the folder of its file, or in a picture store, and nowhere else (`picture_file`).
"""

import base64
import binascii
import hashlib
import io
import math
import os
import re
import struct
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from safer_steer.errors import UserError

MIN_SIDE = 28
MAX_ASPECT = 200
MIN_PIXELS = 28 * 28
MAX_PIXELS = 1280 * 28 * 28
MAX_DECODED_PIXELS = 89_478_485  # where Pillow begins to warn of a decompression bomb: 256 MiB of RGB
MAX_FILE_BYTES = 128 * 1024 * 1024
# The formats of picture data sets; Pillow's others are seldom used, and one (EPS) runs another program on the file.
FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "PPM", "ICO")
_STORED = re.compile(r"images/[0-9a-f]{16}\.png")


class ImageError(UserError):
    """A picture that cannot be used; the row that holds it is rejected with this reason."""


def load_image(
    source: Any, *, root: Path | None = None, min_pixels: int = MIN_PIXELS, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Decodes and cleans one picture.

    Args:
        source: bytes, a `{"bytes": ..., "path": ...}` struct, a path, a `data:` URL or a PIL picture.
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
    picture = _transposed(_decode(source, root))
    try:
        return _to_rgb(picture)
    except ValueError as error:
        raise ImageError(f"picture of mode {picture.mode} cannot become RGB: {error}") from error


def _decode(source: Any, root: Path | None) -> Image.Image:
    if isinstance(source, Mapping):
        source = _encoded(source.get("bytes")) or source.get("path")
    if isinstance(source, Image.Image):
        return source
    if source is None or source == "":
        raise ImageError("no picture: got neither bytes nor a path")
    if isinstance(source, str) and source.startswith("data:"):
        source = _from_base64(source.partition(",")[2], "data URL")
    if isinstance(source, str | Path):
        source = _read_file(source, root)
    if not isinstance(source, bytes | bytearray | memoryview):
        raise ImageError(
            f"a picture is bytes, a struct, a path, a data URL or a PIL picture; got {type(source).__name__}"
        )
    if len(source) > MAX_FILE_BYTES:
        raise ImageError(f"picture has {len(source):,} bytes: above {MAX_FILE_BYTES >> 20} MiB")
    try:
        picture = Image.open(io.BytesIO(source), formats=FORMATS)
        if picture.width * picture.height > MAX_DECODED_PIXELS:
            raise ImageError(
                f"picture is {picture.width}x{picture.height}: above {MAX_DECODED_PIXELS:,} pixels, maybe a bomb"
            )
        picture.seek(0)
        picture.load()
    except UnidentifiedImageError as error:
        raise ImageError(f"picture cannot be decoded: none of the formats {', '.join(FORMATS)}") from error
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise ImageError(f"picture cannot be decoded: {error}") from error
    return picture


def _encoded(data: Any) -> Any:
    """A struct's bytes; JSON files hold them as base64 text."""
    return _from_base64(data, "struct's bytes") if isinstance(data, str) else data


def _from_base64(text: str, what: str) -> bytes:
    if len(text) > MAX_FILE_BYTES * 4 // 3 + 4:
        raise ImageError(f"{what} has {len(text):,} characters: above {MAX_FILE_BYTES >> 20} MiB of picture")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageError(f"broken {what}: {error}") from error


def _read_file(source: str | Path, root: Path | None) -> bytes:
    path = picture_file(root, source) if root else Path(source)
    try:
        if not path.is_file():
            raise ImageError(f"picture not found: {path!s:.300}")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ImageError(f"picture file is above {MAX_FILE_BYTES >> 20} MiB: {path}")
        return path.read_bytes()
    except OSError as error:  # also for text that is no path at all, such as a picture's base64
        raise ImageError(f"picture cannot be read: {error.strerror}: {path!s:.100}") from error


def picture_file(root: Path, name: str | Path) -> Path:
    """The file that a row names as its picture. Rows are data, and their pictures are shown to models and in reports,
    so they cannot name just any file.

    Args:
        root: the folder of the file that holds the row.
        name: a relative path to a file below `root`, symbolic links followed, or to a picture of any `ImageStore`
            (`../data/images/<16 hex digits>.png`), which our own writers name across folders.

    Raises:
        ImageError: an absolute path, a URL, or a file elsewhere.
    """
    if "://" in str(name):
        raise ImageError(f"picture is a URL: {name!s:.100}; download it and name the file, nothing is fetched")
    if Path(name).is_absolute():
        raise ImageError(f"picture has an absolute path: {name!s:.100}; name it relative to the file with the row")
    path = root / name
    try:
        real, folder = path.resolve(), root.resolve()
    except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL, a loop of links
        raise ImageError(f"picture path cannot be followed: {name!s:.100}") from error
    if not real.is_relative_to(folder) and not is_stored(real):
        raise ImageError(f"picture {name!s:.100} leads out of {root}; put a copy beside the file with the row")
    return path


def is_stored(path: Path) -> bool:
    """Whether a path is that of a picture in an `ImageStore`, by its form."""
    return bool(_STORED.fullmatch("/".join(path.parts[-2:])))


def _transposed(picture: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(picture)
    except (SyntaxError, ValueError, TypeError, KeyError, struct.error, OSError):
        return picture  # its EXIF block is broken, so it names no rotation, and no viewer applies one


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I") or picture.mode == "F":
        values = np.asarray(picture, dtype=np.float64)
        top = 65535.0 if picture.mode.startswith("I") else max(float(values.max()), 1.0)
        picture = Image.fromarray(np.clip(values / top * 255.0, 0, 255).astype(np.uint8), mode="L")
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, picture)
    return picture.convert("RGB")


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
