"""A decoded picture of any Pillow mode -> 8-bit RGB. What was drawn stays visible: no picture becomes all black or all
white without a word.

Grey values of more than 8 bits and floats are scaled, "not a number" and infinities are left out of the scale, and
transparency is put on white, or on black where everything drawn is white.
"""

from typing import Any

import numpy as np
from PIL import Image, ImageOps

from safer_steer.errors import ImageError

FULL_SCALES = (1.0, 255.0, 65535.0)  # what values are written in: shares, 8 bits, 16 bits
DARKEST = 16 / 255  # a picture whose brightest value is below this share of its scale was written in another one
FAINTEST = 16  # of 255: a picture that is nowhere as opaque as this has its transparency written in another scale
MASK_VALUES = 16  # a picture of more values than this is no mask, whose two values are all there is


def to_rgb(picture: Image.Image) -> Image.Image:
    """The picture as RGB in its own size.

    Raises:
        ImageError: it has nothing that can be shown: no finite value, pixels that are all transparent, or a palette
            that makes one colour of all of them.
    """
    shown = _shown(picture)
    if picture.mode in ("P", "PA") and _one_colour(shown) and not _one_colour(picture.getchannel(0)):
        raise ImageError("the picture's palette is missing or makes one colour of all its pixels")
    return shown


def _shown(picture: Image.Image) -> Image.Image:
    if picture.mode == "F" or picture.mode.startswith("I"):
        picture = _grey(picture)
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    return _on_background(picture.convert("LA" if picture.mode == "La" else "RGBA").convert("RGBA"))


def upright(picture: Image.Image) -> Image.Image:
    """The picture turned as its EXIF block says; a broken block names no rotation, and no viewer applies one."""
    try:
        return ImageOps.exif_transpose(picture)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - any error of a parser of foreign bytes
        return picture


def _grey(picture: Image.Image) -> Image.Image:
    values = np.asarray(picture, dtype=np.float32)
    grey = Image.fromarray(_levels(values), mode="L")
    transparent = picture.info.get("transparency")
    if isinstance(transparent, int) and picture.mode.startswith("I;16"):
        grey.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8), mode="L"))
    return grey


@np.errstate(invalid="ignore")  # a signalling "not a number" is said by a warning
def _levels(values: Any) -> Any:
    """Grey levels, 0 to 255, of values of any scale."""
    values = np.asarray(values, dtype=np.float64)  # the range of float32 does not fit float32
    finite = np.isfinite(values)
    if not finite.any():
        raise ImageError("none of the picture's values is a finite number")
    low, high = float(values[finite].min()), float(values[finite].max())
    bottom, top = 0.0, next((scale for scale in FULL_SCALES if high <= scale), high)
    stretched = low < 0 or high > FULL_SCALES[-1]
    if stretched and high > low:
        bottom, top = low, high
    elif high > low and high < DARKEST * top:
        top = high
    values = np.nan_to_num(values, nan=bottom, posinf=top, neginf=bottom)
    levels = (np.clip((values - bottom) / (top - bottom), 0, 1) * 255).astype(np.uint8)
    if stretched and len(np.unique(levels)) <= 2 and len(np.unique(values)) > MASK_VALUES:
        raise ImageError(f"the picture's values, {low:g} to {high:g}, leave two of 256 grey levels; scale it to 8 bits")
    return levels


def _on_background(picture: Image.Image) -> Image.Image:
    alpha = np.asarray(picture.getchannel("A"))
    least, most = alpha.min(), alpha.max()
    if most < FAINTEST:
        raise ImageError(
            "every pixel of the picture is transparent (of an animation: of its first frame); remove its transparency"
        )
    shown = _composite(picture, (255, 255, 255, 255))
    if least != most and _one_colour(shown):
        shown = _composite(picture, (0, 0, 0, 255))
    return shown


def _composite(picture: Image.Image, colour: tuple[int, int, int, int]) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", picture.size, colour), picture).convert("RGB")


def _one_colour(picture: Image.Image) -> bool:
    return all(low == high for low, high in (band.getextrema() for band in picture.split()))
