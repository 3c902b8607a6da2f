"""One way to load a picture for teacher, trainer, rollout and judge: bytes, struct, path, data URL or PIL -> clean
RGB picture.

Full decode, EXIF rotation applied, transparency composited on white, 16-bit scaled, first frame, RGB, resized within
`min_pixels`/`max_pixels` with both sides >= 28 and aspect ratio <= 200, the limits of Qwen2.5-VL's processor.
"""

import base64
import binascii
import hashlib
import io
import math
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


class ImageError(UserError):
    """A picture that cannot be used; the row that holds it is rejected with this reason."""


def load_image(
    source: Any, *, root: Path | None = None, min_pixels: int = MIN_PIXELS, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Decodes and cleans one picture.

    Args:
        source: bytes, a `{"bytes": ..., "path": ...}` struct, a path, a `data:` URL or a PIL picture.
        root: folder that relative paths are resolved against.
        min_pixels: smallest area; smaller pictures are enlarged.
        max_pixels: largest area; larger pictures are reduced.

    Returns:
        An RGB picture whose sides are >= 28 px and whose aspect ratio is <= 200.

    Raises:
        ImageError: the picture is missing, unreadable or too elongated.
    """
    picture = _decode(source, root)
    return _fit(_to_rgb(picture), min_pixels, max_pixels)


def _decode(source: Any, root: Path | None) -> Image.Image:
    if isinstance(source, Mapping):
        source = source.get("bytes") or source.get("path")
    if isinstance(source, Image.Image):
        return ImageOps.exif_transpose(source)
    if source is None or source == "":
        raise ImageError("no picture: got neither bytes nor a path")
    if isinstance(source, str) and source.startswith("data:"):
        try:
            source = base64.b64decode(source.partition(",")[2], validate=True)
        except (binascii.Error, ValueError) as error:
            raise ImageError(f"broken data URL: {error}") from error
    if isinstance(source, str | Path):
        path = Path(root, source) if root else Path(source)
        if not path.is_file():
            raise ImageError(f"picture not found: {path}")
        source = path.read_bytes()
    try:
        picture = Image.open(io.BytesIO(source))
        picture.seek(0)
        picture.load()
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise ImageError(f"picture cannot be decoded: {error}") from error
    return ImageOps.exif_transpose(picture)


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


def _fit(picture: Image.Image, min_pixels: int, max_pixels: int) -> Image.Image:
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
            temporary = path.with_suffix(".tmp")
            temporary.write_bytes(png_bytes(picture))
            temporary.replace(path)
        return relative


def image_data_url(source: str | Path | Image.Image) -> str:
    """A picture as a PNG data URL; a stored PNG is passed on byte for byte."""
    if isinstance(source, Image.Image):
        data = png_bytes(source)
    elif str(source).endswith(".png") and Path(source).is_file():
        data = Path(source).read_bytes()
    else:
        data = png_bytes(load_image(source))
    return "data:image/png;base64," + base64.b64encode(data).decode("ascii")
