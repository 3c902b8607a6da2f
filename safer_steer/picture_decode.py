"""The bytes of a picture file -> RGB. Whatever a decoder raises is an `ImageError`: the file is unusable, not the run.

Files above `MAX_FILE_BYTES` and pictures above `MAX_DECODED_PIXELS` are refused before they are decoded.
"""

import io

from PIL import Image, UnidentifiedImageError

from safer_steer.errors import ImageError
from safer_steer.picture_messages import take_message
from safer_steer.picture_pixels import to_rgb, upright

MAX_DECODED_PIXELS = 89_478_485  # where Pillow begins to warn of a decompression bomb: 256 MiB of RGB
MAX_FILE_BYTES = 128 * 1024 * 1024
# The formats of picture data sets; Pillow's others are seldom used, and one (EPS) runs another program on the file.
FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "ICO")
# PNG states its transparent colour in the file's bit depth, Pillow compares it with what it made 8 bits of.
_DEPTHS = {"1": 255, "L;2": 85, "L;4": 17}


def decode_bytes(data: bytes | bytearray | memoryview) -> Image.Image:
    """The picture as RGB in its own size.

    Raises:
        ImageError: it is too large, of an unknown format, or cannot be decoded.
    """
    if len(data) > MAX_FILE_BYTES:
        raise ImageError(f"picture has {len(data):,} bytes: above {MAX_FILE_BYTES >> 20} MiB")
    try:
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise ImageError(f"picture cannot be decoded: none of the formats {', '.join(FORMATS)}") from error
    except Exception as error:
        raise _undecodable(error) from error
    return clean(picture)


def clean(picture: Image.Image) -> Image.Image:
    """An opened picture as upright RGB, the frame that it is at.

    Raises:
        ImageError: it is too large or cannot be decoded.
    """
    try:
        _check_size(picture)
        _scale_transparency(picture)
        picture.load()
        _check_size(picture)
        return to_rgb(upright(picture))
    except ImageError:
        raise
    except Exception as error:  # decoders of foreign bytes: RuntimeError, struct.error, MemoryError and many more
        raise _undecodable(error) from error
    finally:
        take_message()  # of damage that did not stop the decoder


def _undecodable(error: Exception) -> ImageError:
    said = ": ".join(filter(None, (str(error) or type(error).__name__, take_message())))
    return ImageError(f"picture cannot be decoded: {said:.300}")


def _check_size(picture: Image.Image) -> None:
    width, height = picture.size
    if width * height > MAX_DECODED_PIXELS:
        raise ImageError(f"picture is {width}x{height}: above {MAX_DECODED_PIXELS:,} pixels, maybe a bomb")
    if width < 1 or height < 1:
        raise ImageError(f"picture is {width}x{height}: it has no pixel")


def _scale_transparency(picture: Image.Image) -> None:
    colour, tiles = picture.info.get("transparency"), getattr(picture, "tile", None)
    if picture.format != "PNG" or colour is None or not tiles:
        return
    raw = tiles[0].args
    if raw == "RGB;16B" and isinstance(colour, tuple):
        picture.info["transparency"] = tuple(value >> 8 for value in colour)
    elif raw in _DEPTHS and isinstance(colour, int):
        picture.info["transparency"] = min(255, colour * _DEPTHS[raw])
