"""What a row says its picture is -> the picture's bytes, or the name of its file.

The forms that data sets hold: bytes, a `{"bytes", "path"}` struct, a path, a data URL, base64 text, and the parts of
chat messages as providers take them (`{"image_url": {"url": ...}}`, `{"source": {"data": ...}}`, ...), nested as they
come. Nothing is fetched.
"""

import base64
import binascii
import math
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

from safer_steer import picture_decode
from safer_steer.errors import ImageError

ENCODED = ("bytes", "base64", "b64_json", "data")  # fields whose text is base64
# fmt: off
NAMED = (
    "path", "url", "uri", "src", "image_url", "image", "source", "inline_data", "inlineData", "file", "file_data",
    "file_name", "filename", "file_path", "image_path",
)
# fmt: on
MAX_DEPTH = 8
_URL = re.compile(r"\s*[a-zA-Z][a-zA-Z0-9+.-]+://")
_FILE = re.compile(r"\s*file:", re.IGNORECASE)
_DATA = re.compile(r"\s*data:", re.IGNORECASE)
# How PNG, JPEG, GIF and WebP begin in base64, which some tables hold as it is.
_BEGINNINGS = ("iVBORw0KGgo", "/9j/", "R0lGOD", "UklGR")
_SHORTEST = 64  # characters; a path that begins so is shorter
_URL_SAFE = str.maketrans("-_", "+/")


class SeveralPictures(ImageError):
    """A field that names more than one picture."""


def unwrapped(value: Any, depth: int = 0) -> Any:
    """The picture that a field holds: bytes, the name of a file, or what it is where it is none of these; None for
    none.

    Raises:
        SeveralPictures: a list of more than one.
        ImageError: a URL, broken base64, or an object without a picture.
    """
    if depth > MAX_DEPTH:
        raise ImageError(f"picture field is nested more than {MAX_DEPTH} deep")
    if isinstance(value, str):
        return _from_text(value)
    if isinstance(value, list | tuple):
        if len(value) > 1 and (data := _listed(value)) is not None:
            return data
        if len(value) > 1:
            raise SeveralPictures(f"{len(value)} pictures, where there can be one")
        return unwrapped(value[0], depth + 1) if value else None
    if isinstance(value, Mapping):
        return _from_object(value, depth)
    return None if _is_nothing(value) else value


def _from_object(value: Mapping[str, Any], depth: int) -> Any:
    for key in ENCODED:
        if not _is_nothing(found := value.get(key)):
            return _encoded(found, key, depth)
    for key in NAMED:
        if not _is_nothing(found := value.get(key)):
            return unwrapped(found, depth + 1)
    if unknown := sorted(str(key) for key, item in value.items() if not _is_nothing(item) and key != "type"):
        known = not {*ENCODED, *NAMED}.isdisjoint(value)
        if not known:
            raise ImageError(f"no picture in an object with {', '.join(unknown)[:200]}; allowed: bytes, path, url")
    return None


def _encoded(found: Any, key: str, depth: int) -> Any:
    if isinstance(found, str) and not _DATA.match(found):
        return from_base64(found, f"base64 of {key!r}")
    return unwrapped(found, depth + 1)


def _listed(found: list | tuple) -> bytes | None:
    """Bytes as a list of numbers; None for any other list."""
    if not all(isinstance(item, int) for item in found):
        return None
    try:
        return bytes(found)
    except ValueError as error:
        raise ImageError(f"a list of numbers that are no bytes: {error}") from error


def is_url(name: str) -> ImageError:
    """What to say of a picture that is on the net."""
    return ImageError(f"picture is a URL: {name:.100}; download it first and name the file: nothing is fetched")


def _from_text(text: str) -> Any:
    if _DATA.match(text):
        return _from_data_url(text)
    if _URL.match(text) and not _FILE.match(text):
        raise is_url(text.strip())
    if len(text) >= _SHORTEST and text.lstrip().startswith(_BEGINNINGS):
        try:
            return from_base64(text, "base64")
        except ImageError:
            return text
    return text if text.strip() else None


def _from_data_url(url: str) -> bytes:
    head, comma, body = url.partition(",")
    if not comma:
        raise ImageError(f"broken data URL: no comma in it: {url:.60}")
    try:
        return from_base64(unquote(body), "data URL")
    except ImageError:
        if ";base64" in head.lower().replace(" ", ""):
            raise
        return unquote_to_bytes(body)


def from_base64(text: str, what: str) -> bytes:
    """The bytes of base64 text: with line breaks, without padding, or of the URL-safe alphabet.

    Raises:
        ImageError: it is none, or too long.
    """
    if len(text) > picture_decode.MAX_FILE_BYTES * 3 // 2:
        limit = picture_decode.MAX_FILE_BYTES >> 20
        raise ImageError(f"{what} has {len(text):,} characters: above {limit} MiB of picture")
    letters = "".join(text.split()).translate(_URL_SAFE).rstrip("=")
    try:
        return base64.b64decode(letters + "=" * (-len(letters) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageError(f"broken {what}: {error}") from error


def _is_nothing(value: Any) -> bool:
    """Whether a cell is empty; tables write NaN where they have nothing."""
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or (isinstance(value, str | bytes | list | tuple | Mapping) and not value)
