"""Text files of any Unicode encoding. Bytes that are not of it spoil their own row only: they are kept as marks."""

import codecs
import json
import re
from pathlib import Path
from typing import TextIO

from data_construction.sources.record import HowRead

KEEP = "safer_steer.keep_bad_bytes"
_MARKS = re.compile("[\udc00-\udcff]")  # no decoder makes these of good bytes: a whole pair becomes one character


def _keep(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "".join(chr(0xDC00 + byte) for byte in error.object[error.start : error.end]), error.end


codecs.register_error(KEEP, _keep)


def open_text(path: Path, how: HowRead, newline: str) -> TextIO:
    """Opens a file in the encoding that its first bytes show: UTF-8, UTF-16 or UTF-32, with or without a mark."""
    with path.open("rb") as file:
        encoding = json.detect_encoding(file.read(4))
    how.encoding = encoding.upper().removesuffix("-SIG")
    return path.open(encoding=encoding, errors=KEEP, newline=newline)


def bad_bytes(text: str, encoding: str) -> str:
    """What a text is not, "" for nothing: its encoding, with the first byte that is not of it."""
    found = _MARKS.search(text)
    if found is None:
        return ""
    return f"{encoding}: byte 0x{ord(found[0]) - 0xDC00:02x}; save the file as UTF-8"
