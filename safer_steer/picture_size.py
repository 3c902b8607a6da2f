"""How large a picture is when a model sees it: one rule and one value, `max_pixels`, for every stage.

A picture is resized once, by `images.load_image(path, size=...)`, to a size that Qwen-VL's own processors (in
transformers, vLLM and qwen-vl-utils) leave as it is: sides that are multiples of the model's unit, an area within the
limits, an aspect ratio of at most 200. So SFT, GRPO and evaluation show the same pixels and count the same tokens.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Self

from pydantic import Field

from safer_steer.errors import UserError
from safer_steer.store import write_atomic
from safer_steer.weights import is_hub_id

MAX_ASPECT = 200  # Qwen-VL's processors refuse more
MIN_SIDE = 28
MIN_TOKENS = 4  # qwen-vl-utils, which verl uses, enlarges pictures of fewer tokens
STORED_PIXELS = 1280 * 28 * 28  # largest area that ingest keeps: 1,280 tokens, Qwen2.5-VL's guide
MAX_PIXELS = 262_144  # largest area that models see unless a config says otherwise; released yaml: image_max_pixels
PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")  # as transformers reads them

PixelLimit = Annotated[int, Field(ge=MIN_TOKENS * MIN_SIDE**2, le=STORED_PIXELS)]


@dataclass(frozen=True)
class PictureSize:
    """The sizes that a model family sees.

    Attributes:
        unit: px; side of the square that becomes one token, the processor's patch x merge.
        min_pixels: smallest area; smaller pictures are enlarged.
        max_pixels: largest area; larger pictures are reduced.
    """

    unit: int = MIN_SIDE
    min_pixels: int = MIN_TOKENS * MIN_SIDE**2
    max_pixels: int = MAX_PIXELS

    @classmethod
    def of(cls, processor: Any, max_pixels: int | None = None) -> Self:
        """The sizes of a checkpoint.

        Args:
            processor: a checkpoint's processor; of the Qwen-VL kind its image processor or that one's settings
                (`image_settings`) do as well. Another kind makes one square of so many tokens of every picture.
            max_pixels: largest area that the stage shows; None for the processor's own limit.

        Raises:
            UserError: it is another kind of processor, or its own smallest area is above `max_pixels`.
        """
        image_processor = getattr(processor, "image_processor", processor)
        try:
            own = dict(image_processor.size)
            if count := getattr(processor, "image_seq_length", None):
                unit, smallest = own["height"] // math.isqrt(count), own["height"] * own["width"]
                max_pixels = min(max_pixels or smallest, smallest)
            else:
                unit = image_processor.patch_size * image_processor.merge_size
                smallest = max(own["shortest_edge"], MIN_TOKENS * unit**2)
                max_pixels = max_pixels or own["longest_edge"]
        except (AttributeError, KeyError, TypeError) as error:
            raise UserError(
                f"{type(image_processor).__name__}: not an image processor of the Qwen-VL kind, which has patch_size, "
                f"merge_size and size with shortest_edge and longest_edge ({error}); use a "
                "Qwen2-VL, Qwen2.5-VL or Qwen3-VL checkpoint"
            ) from error
        if max_pixels < smallest:
            raise UserError(
                f"max_pixels {max_pixels} is below the checkpoint's own smallest picture, {smallest} px; raise it"
            )
        return cls(unit, smallest, max_pixels)

    def fit(self, width: int, height: int) -> tuple[int, int]:
        """The (width, height) in px at which a picture is shown: Qwen-VL's own rule wherever that keeps its promise.

        Raises:
            ValueError: the picture is too elongated.
        """
        most = self.max_pixels // self.unit**2
        refuse_elongated(width, height, min(MAX_ASPECT, most))
        w, h = (max(1, round(side / self.unit)) for side in (width, height))
        if w * h * self.unit**2 > self.max_pixels:
            scale = math.sqrt(self.max_pixels / (width * height))
            w, h = (max(1, math.floor(side * scale / self.unit)) for side in (width, height))
        elif w * h * self.unit**2 < self.min_pixels:
            scale = math.sqrt(self.min_pixels / (width * height))
            w, h = (math.ceil(side * scale / self.unit) for side in (width, height))
        if not self._allowed(w, h):
            w, h = self._nearest(width / height)
        return w * self.unit, h * self.unit

    def tokens(self, width: int, height: int) -> int:
        """Tokens of a picture of this width and height after `fit`."""
        w, h = self.fit(width, height)
        return w * h // self.unit**2

    def _allowed(self, w: int, h: int) -> bool:
        """Whether w x h units are within the limits."""
        return self.min_pixels <= w * h * self.unit**2 <= self.max_pixels and max(w, h) <= MAX_ASPECT * min(w, h)

    def _nearest(self, aspect: float) -> tuple[int, int]:
        """The units whose aspect ratio is nearest to `aspect`, the larger area first: rounding broke a limit."""
        most = self.max_pixels // self.unit**2
        pairs = ((w, h) for w in range(1, most + 1) for h in range(1, most // w + 1) if self._allowed(w, h))
        return min(pairs, key=lambda pair: (abs(math.log(pair[0] / pair[1] / aspect)), -pair[0] * pair[1]))


def refuse_elongated(width: int, height: int, limit: int = MAX_ASPECT) -> None:
    """Checks an aspect ratio.

    Raises:
        ValueError: it is above `limit`.
    """
    if max(width, height) > limit * min(width, height):
        raise ValueError(f"picture is {width}x{height}: aspect ratio above {limit}; crop it")


def stored_size(width: int, height: int) -> tuple[int, int]:
    """The (width, height) in px at which ingest keeps a picture: its own, within the limits of all stages.

    Raises:
        ValueError: the picture is too elongated.
    """
    refuse_elongated(width, height)
    scale = min(1.0, math.sqrt(STORED_PIXELS / (width * height)))
    if min(width, height) * scale < MIN_SIDE:
        scale = MIN_SIDE / min(width, height)
    whole = math.floor if scale < 1.0 else math.ceil
    size = max(MIN_SIDE, whole(width * scale)), max(MIN_SIDE, whole(height * scale))
    refuse_elongated(*size)
    return size


def processor_tokens(image_processor: Any, width: int, height: int) -> int:
    """Tokens that a checkpoint's own processor makes of a picture."""
    return int(image_processor.get_number_of_image_patches(height, width, {})) // int(image_processor.merge_size) ** 2


def limit_problem(image_processor: Any, max_pixels: int) -> str | None:
    """A sentence when a checkpoint was made for another picture size, else None.

    A checkpoint trained here says in its processor what it was trained with. Released ones allow up to 12.8 M px, above
    all that a stage shows, so they fit any `max_pixels`.
    """
    own = dict(image_processor.size).get("longest_edge")
    if own is None or own > STORED_PIXELS or own == max_pixels:
        return None
    return f"max_pixels is {max_pixels}, but the checkpoint's processor says {own}: it was made for that picture size"


def write_limit(folder: Path, max_pixels: int) -> None:
    """Writes into a checkpoint's processor with what picture size it was trained, so that whoever serves it agrees."""
    for name in PROCESSOR_FILES:
        whole = _read(str(folder), name)
        found = whole.get("image_processor", whole)
        if "merge_size" in found:
            smallest = found.pop("min_pixels", None)
            found.pop("max_pixels", None)
            found["size"] = {"shortest_edge": smallest} | (found.get("size") or {}) | {"longest_edge": max_pixels}
            write_atomic(folder / name, json.dumps(whole, indent=2, ensure_ascii=False) + "\n")


def image_settings(checkpoint: str) -> SimpleNamespace | None:
    """A Qwen-VL checkpoint's image processor as plain settings, without loading it; None for another kind of model.

    Args:
        checkpoint: folder or hub name.

    Raises:
        UserError: a hub name whose files cannot be fetched, or a file that is not JSON.
    """
    for name in PROCESSOR_FILES:
        found = _read(checkpoint, name)
        found = found.get("image_processor", found)
        if "merge_size" in found and "patch_size" in found:
            size = found.get("size") or {}
            size = {
                "shortest_edge": found.get("min_pixels") or size.get("shortest_edge") or size.get("min_pixels") or 0,
                "longest_edge": found.get("max_pixels") or size.get("longest_edge") or size.get("max_pixels"),
            }
            return SimpleNamespace(patch_size=found["patch_size"], merge_size=found["merge_size"], size=size)
    if is_hub_id(checkpoint) and not _read(checkpoint, "config.json"):
        raise UserError(f"{checkpoint}: its files cannot be fetched from the hub; check the name, or download it first")
    return None


def _read(checkpoint: str, name: str) -> dict[str, Any]:
    """A JSON file of a checkpoint, from the hub where it is a hub name; {} where there is none."""
    path = Path(checkpoint, name)
    if is_hub_id(checkpoint):
        from huggingface_hub import hf_hub_download

        try:
            path = Path(hf_hub_download(checkpoint, name))
        except (OSError, ValueError):  # of all its errors: no such file, no such model, no network
            return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is not a JSON object: {error}; write the checkpoint again") from error
