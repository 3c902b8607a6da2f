"""Where the file of a picture is. Rows are data, and their pictures are shown to models and in reports, so they cannot
name just any file: only one below the folder of their own file, or in a picture store (`is_stored`).

A name is looked up as it is written, then as a `file:` URL, without blanks around it, with slashes for backslashes,
and with accents composed or decomposed (NFC, NFD), which differ between the systems that a data set was copied over.
"""

import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from safer_steer import picture_decode
from safer_steer.errors import ImageError
from safer_steer.picture_field import is_url

_STORED = re.compile(r"images/[0-9a-f]{16}\.png")
_FILE_URL = re.compile(r"file:(?://(?:localhost(?=/))?)?", re.IGNORECASE)


def spellings(name: str) -> list[str]:
    """The ways to read a name, as it is written first; without accents."""
    plain = name.strip()
    if match := _FILE_URL.match(plain):
        plain = unquote(plain[match.end() :])
    return list(dict.fromkeys((name, plain, plain.replace("\\", "/"))))


def located(folder: Path, name: str | Path) -> Path:
    """The file of a name in a folder; where there is none, the path at which it was expected."""
    names = spellings(str(name))
    for text in names:
        if is_file(folder / text):
            return folder / text
    for text in names:
        if not text.isascii() and is_file(found := _by_accents(folder, text)):
            return found
    return folder / names[-1]


def _by_accents(folder: Path, name: str) -> Path:
    path = folder
    for part in PurePosixPath(name).parts:
        path = next((found for found in _forms(path, part) if found.exists()), path / part)
    return path


def _forms(folder: Path, part: str) -> Iterator[Path]:
    for text in dict.fromkeys((part, unicodedata.normalize("NFC", part), unicodedata.normalize("NFD", part))):
        yield folder / text


def is_file(path: Path) -> bool:
    """Whether there is such a file; False for a name that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def picture_file(root: Path, name: str | Path) -> Path:
    """The file that a row names as its picture.

    Args:
        root: the folder of the file that holds the row.
        name: a path to a file below `root`, symbolic links followed, or to a picture of any `ImageStore`
            (`../data/images/<16 hex digits>.png`), which our own writers name across folders.

    Raises:
        ImageError: a URL, a data URL, or a file elsewhere.
    """
    if str(name).lstrip()[:5].lower() == "data:":
        raise ImageError(f"picture is a data URL: {name!s:.40}; save it next to the row's file and name that file")
    if "://" in str(name) and not _FILE_URL.match(str(name).strip()):
        raise is_url(str(name))
    try:
        path = located(root, name)
        real, folder = path.resolve(), root.resolve()
    except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL, a loop of links
        raise ImageError(f"picture path cannot be followed: {name!s:.100}") from error
    if not real.is_relative_to(folder) and not is_stored(real):
        raise ImageError(f"picture {name!s:.100} leads out of {root}; put a copy next to the file with the row")
    return path


def is_stored(path: Path) -> bool:
    """Whether a path is that of a picture in an `ImageStore`, by its form."""
    return bool(_STORED.fullmatch("/".join(path.parts[-2:])))


def read_picture(source: str | Path, root: Path | None) -> bytes:
    """The bytes of a picture file.

    Args:
        source: its name.
        root: folder of the row that names it, see `picture_file`; None for a path of our own.

    Raises:
        ImageError: it is not there, too large, cannot be read, or may not be named.
    """
    path = picture_file(root, source) if root else Path(source)
    try:
        if not path.is_file():
            raise ImageError(f"picture not found: {path!s:.300}")
        if path.stat().st_size > picture_decode.MAX_FILE_BYTES:
            raise ImageError(f"picture file is above {picture_decode.MAX_FILE_BYTES >> 20} MiB: {path}")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # also for text that is no path at all
        said = error.strerror if isinstance(error, OSError) else error
        raise ImageError(f"picture cannot be read: {said}: {path!s:.100}") from error
