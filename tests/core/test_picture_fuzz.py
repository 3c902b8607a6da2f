"""Damaged picture files of every format that is read: a picture or an `ImageError`, never anything else.

The seed is random, printed on a failure and can be given: SAFER_STEER_SEED=7 pytest tests/core/test_picture_fuzz.py.
"""

import io
import os
import random
import struct

import pytest
from PIL import Image

from safer_steer.errors import ImageError
from safer_steer.images import load_image

SEED = int(os.environ.get("SAFER_STEER_SEED") or random.SystemRandom().randrange(2**32))
FEW, ALL = 12, 200  # mutations of each file
COMPRESSED = ["RGB jpeg", "RGB tiff_lzw", "RGB tiff_adobe_deflate", "L packbits", "L lzma", "RGB zstd", "1 group3"]
COMPRESSED += ["1 group4", "1 tiff_ccitt"]
SAVED = {
    "AVIF": ["RGB", "RGBA"],
    "BMP": ["1", "P", "RGB"],
    "GIF": ["P", "L"],
    "ICO": ["RGB", "RGBA"],
    "JPEG": ["L", "RGB", "CMYK"],
    "JPEG2000": ["RGB", "RGBA"],
    "MPO": ["RGB"],
    "PNG": ["1", "P", "L", "LA", "RGB", "RGBA", "I;16"],
    "PPM": ["1", "L", "RGB", "F"],
    "TIFF": ["1", "P", "L", "RGB", "RGBA", "CMYK", "LAB", "I;16", "I", "F", *COMPRESSED],
    "WEBP": ["RGB", "RGBA"],
}
SIDE = 48


def sample(kind: str, mode: str) -> bytes:
    """A picture of noise; after the mode may stand the compression of a TIFF."""
    mode, _, compression = mode.partition(" ")
    picture = Image.effect_noise((SIDE, SIDE), 60)
    if mode in ("LAB", "I;16", "I", "F"):
        picture = Image.frombytes(
            mode, (SIDE, SIDE), random.Random(1).randbytes(len(Image.new(mode, (48, 48)).tobytes()))
        )
    picture = picture if picture.mode == mode else picture.convert(mode)
    options = {"save_all": True, "append_images": [picture]} if kind in ("GIF", "MPO", "WEBP", "TIFF") else {}
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options | ({"compression": compression} if compression else {}))
    return buffer.getvalue()


def mutated(data: bytes, draw: random.Random) -> bytes:
    """One damage of the sorts that happen: flipped, cut, blanked, doubled or swapped bytes, and wrong numbers."""
    changed = bytearray(data)
    at, near = draw.randrange(len(data)), draw.randrange(min(len(data), 64))
    size = draw.choice([1, 2, 4, 16, 200])
    match draw.randrange(8):
        case 0:
            changed[at] ^= 1 << draw.randrange(8)
        case 1:
            changed[near] = draw.randrange(256)
        case 2:
            changed = changed[:at]
        case 3:
            changed[at : at + size] = bytes(len(changed[at : at + size]))
        case 4:
            changed[at : at + size] = draw.randbytes(size)
        case 5:
            changed[near : near + 4] = struct.pack(
                draw.choice("<>") + "I", draw.choice([0, 1, 65_535, 2**31, 2**32 - 1])
            )
        case 6:
            changed[at:at] = changed[at : at + size]
        case 7:
            for _ in range(draw.randrange(1, 20)):
                changed[draw.randrange(len(changed))] = draw.randrange(256)
    return bytes(changed)


CASES = [(kind, mode) for kind, modes in SAVED.items() for mode in modes]


@pytest.mark.parametrize(("kind", "mode"), CASES)
@pytest.mark.parametrize("mutations", [FEW, pytest.param(ALL, marks=pytest.mark.nightly)])
def test_damaged_files_are_pictures_or_rejected(kind, mode, mutations, capfd):
    whole = sample(kind, mode)
    assert load_image(whole).mode == "RGB", "the undamaged file is read"
    for number in range(mutations):
        damaged = mutated(whole, random.Random(f"{SEED} {kind} {mode} {number}"))
        try:
            assert load_image(damaged).mode == "RGB"
        except ImageError:
            continue
        except BaseException as error:
            raise AssertionError(f"SAFER_STEER_SEED={SEED}: {kind} {mode} {number}: {error!r}") from error
    said = "".join(capfd.readouterr())
    assert not said, f"SAFER_STEER_SEED={SEED}: {kind} {mode}: decoders' own messages are not ours to print: {said}"


@pytest.mark.parametrize(
    ("compression", "reason"),
    [(4, "Bits/sample must be 1"), (5, "code not yet in table"), (7, "Not a JPEG file"), (34676, "photometric")],
)
def test_what_a_native_decoder_prints_is_the_reason_of_the_reject_and_of_no_other(compression, reason, capfd):
    whole = sample("TIFF", "CMYK")
    entry = whole.index(struct.pack("<HHI", 259, 3, 1))
    damaged = whole[: entry + 8] + struct.pack("<H", compression) + whole[entry + 10 :]
    with pytest.raises(ImageError, match=reason):
        load_image(damaged)
    with pytest.raises(ImageError) as other:
        load_image(sample("PNG", "RGB")[:200])
    assert reason not in str(other.value)
    assert "".join(capfd.readouterr()) == ""


@pytest.mark.parametrize("error", [RuntimeError, MemoryError, struct.error, Image.DecompressionBombWarning])
@pytest.mark.parametrize("step", ["open", "load", "convert"])
def test_whatever_a_decoder_raises_is_an_unusable_picture(error, step, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise error("decoder's words")

    owner = Image if step == "open" else Image.Image
    whole = sample("PPM", "RGB")
    monkeypatch.setattr(owner, step, fail)
    if step == "load":
        monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    with pytest.raises(ImageError, match=r"cannot be decoded: .*decoder's words"):
        load_image(whole)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_a_user_who_stops_the_run_is_no_bad_picture(stop, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise stop

    monkeypatch.setattr("PIL.Image.open", fail)
    with pytest.raises(stop):
        load_image(sample("PPM", "RGB"))
