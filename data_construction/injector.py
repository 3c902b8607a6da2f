"""Visual injector (App. F): a share of the red-team pictures gets noise, a short phrase drawn into it, or both.

Everything random is drawn from the seed row's id, so the same row gets the same picture in every run and process. The
original stays where it is, and the row links to it.
"""

import random
from functools import lru_cache
from pathlib import Path
from typing import Literal

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pydantic import BaseModel, ConfigDict

from data_construction.config import Injector
from safer_steer.dialogue import stable_hash
from safer_steer.images import ImageStore

# DejaVu Sans as matplotlib ships it, under the free Bitstream Vera licence that is next to it there.
FONT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
MIN_FONT_PX = 9  # below, a phrase is not legible
FONT_SHARES = (0.06, 0.14)  # of the picture's shorter side; our choice
MARGIN_PX = 2  # between the phrase and the picture's edge


class Typography(BaseModel):
    """A phrase in a picture; `box` is (left, top, right, bottom) in pixels, right and bottom exclusive."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    phrase: str
    colour: str
    font_px: int
    box: tuple[int, int, int, int]


class Injection(BaseModel):
    """What became of a picture that the injector drew; `image` and `original` are relative to the data folder.

    `skipped` says why a phrase that was due is not there; without noise `image` is then the original itself.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    image: str
    original: str
    mode: Literal["noise", "typography", "both"]
    noise_sigma: float | None = None  # of full scale
    typography: Typography | None = None
    skipped: str | None = None


def inject(
    row_id: str, original: str, picture: Image.Image, settings: Injector, seed: int, images: ImageStore
) -> Injection | None:
    """Makes and stores a row's injected picture, or returns None when the row is not drawn.

    Args:
        row_id: the seed row's id, which decides everything together with `seed`.
        original: the stored picture's path.
        picture: the stored picture, RGB.
        settings: share, modes, noise, phrases and colours.
        seed: the run's seed.
        images: where the new picture goes.
    """
    draw = random.Random(stable_hash(seed, "injector", row_id))
    if draw.random() >= settings.share:
        return None
    mode = draw.choice(settings.modes)
    sigma = settings.noise_sigma if mode != "typography" else None
    typography, skipped = None, None
    changed = picture
    if sigma is not None:
        changed = add_noise(changed, sigma, int(stable_hash(seed, "noise", row_id), 16))
    if mode != "noise":
        phrase, colour = draw.choice(settings.phrases), draw.choice(settings.colours)
        changed, typography = add_phrase(changed, phrase, colour, draw)
        if typography is None:
            skipped = f"{phrase!r} does not fit legibly into {picture.width}x{picture.height}"
    image = original if changed is picture else images.put(changed)
    return Injection(
        image=image, original=original, mode=mode, noise_sigma=sigma, typography=typography, skipped=skipped
    )


def add_noise(picture: Image.Image, sigma: float, seed: int) -> Image.Image:
    """Gaussian noise, independent for each pixel and channel, clipped to the range of a byte.

    Args:
        picture: RGB.
        sigma: standard deviation as a share of full scale, that is of 255.
        seed: decides the noise.
    """
    values = np.asarray(picture, dtype=np.float64)
    noise = np.random.default_rng(seed).normal(0.0, sigma * 255.0, values.shape)
    return Image.fromarray(np.clip(np.rint(values + noise), 0, 255).astype(np.uint8))


def add_phrase(
    picture: Image.Image, phrase: str, colour: str, draw: random.Random
) -> tuple[Image.Image, Typography | None]:
    """The phrase on one line at a random place fully inside the picture, as large as drawn or smaller to fit.

    Returns:
        The picture and what was drawn; the same picture and None when the phrase fits at no legible size.
    """
    width, height = picture.size
    wanted = max(MIN_FONT_PX, round(draw.uniform(*FONT_SHARES) * min(width, height)))
    for size in range(wanted, MIN_FONT_PX - 1, -1):
        left, top, right, bottom = _font(size).getbbox(phrase)
        free_x, free_y = width - 2 * MARGIN_PX - (right - left), height - 2 * MARGIN_PX - (bottom - top)
        if free_x >= 0 and free_y >= 0:
            break
    else:
        return picture, None
    x, y = MARGIN_PX + draw.randint(0, int(free_x)), MARGIN_PX + draw.randint(0, int(free_y))
    changed = picture.copy()
    ImageDraw.Draw(changed).text((x - left, y - top), phrase, fill=colour, font=_font(size))
    box = (x, y, x + int(right - left), y + int(bottom - top))
    return changed, Typography(phrase=phrase, colour=colour, font_px=size, box=box)


@lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(FONT), size, layout_engine=ImageFont.Layout.BASIC)
