"""What decoders say of damaged files outside their exceptions: kept for the reason of the reject, never printed."""

import ctypes
import logging
import threading
import warnings
from contextlib import suppress

from PIL import _imaging

MAX_BYTES = 500  # of one message
_said = threading.local()


def _keep(_module: bytes | None, form: bytes, values: int) -> None:
    """Error handler of libtiff; the values of its printf form come as C passes them on, a pointer."""
    text = ctypes.create_string_buffer(MAX_BYTES)
    ctypes.CDLL(None).vsnprintf(text, ctypes.c_size_t(MAX_BYTES), form, ctypes.c_void_p(values))
    _said.text = text.value.decode("utf-8", "replace").rstrip(".\n")


def take_message() -> str:
    """What the native decoders said last in this thread, "" for nothing; a second call gives nothing."""
    text, _said.text = getattr(_said, "text", ""), ""
    return text


_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)(_keep)  # lives as long as libtiff
warnings.filterwarnings("ignore", module=r"PIL\.")  # of damaged files: they are rejected, or decoded all the same
logging.getLogger("PIL").setLevel(logging.CRITICAL)
with suppress(AttributeError):  # Pillow was built without libtiff, or with it inside
    ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(_HANDLER)
