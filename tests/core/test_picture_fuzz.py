"""Damaged picture files of every format that Pillow reads: a picture or an `ImageError`, never anything else.

The seed is random, printed on a failure and can be given: SAFER_STEER_SEED=7 pytest tests/core/test_picture_fuzz.py.
"""

import io
import os
import random
import struct

import pytest
from PIL import Image

from safer_steer import picture_decode
from safer_steer.errors import ImageError
from safer_steer.images import load_image

SEED = int(os.environ.get("SAFER_STEER_SEED") or random.SystemRandom().randrange(2**32))
FEW, ALL = 12, 200  # mutations of each file
COMPRESSED = ["RGB jpeg", "RGB tiff_lzw", "RGB tiff_adobe_deflate", "L packbits", "L lzma", "RGB zstd", "1 group3"]
COMPRESSED += ["1 group4", "1 tiff_ccitt"]
SAVED = {
    "AVIF": ["RGB", "RGBA"],
    "BLP": ["P"],
    "BMP": ["1", "P", "RGB"],
    "DDS": ["RGB", "RGBA"],
    "DIB": ["RGB"],
    "GIF": ["P", "L"],
    "ICNS": ["RGBA"],
    "ICO": ["RGB", "RGBA"],
    "IM": ["RGB"],
    "JPEG": ["L", "RGB", "CMYK"],
    "JPEG2000": ["RGB", "RGBA"],
    "MPO": ["RGB"],
    "MSP": ["1"],
    "PCX": ["P", "RGB"],
    "PNG": ["1", "P", "L", "LA", "RGB", "RGBA", "I;16"],
    "PPM": ["1", "L", "RGB", "F"],
    "QOI": ["RGB"],
    "SGI": ["L", "RGB"],
    "SPIDER": ["F"],
    "TGA": ["P", "RGB", "RGBA"],
    "TIFF": ["1", "P", "L", "RGB", "RGBA", "CMYK", "LAB", "I;16", "I", "F", *COMPRESSED],
    "WEBP": ["RGB", "RGBA"],
    "XBM": ["1"],
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


def built() -> dict[str, bytes]:
    """Small files of formats that Pillow reads and does not write, as their specifications have them."""
    rgb = random.Random(2).randbytes(3 * 16 * 16)
    fli = struct.pack("<IHHHHHHI", 0, 0xAF11, 1, 16, 16, 8, 0, 5) + bytes(108)
    copied = struct.pack("<IH", 6 + 256, 16) + rgb[:256]
    frame = struct.pack("<IHH8x", 16 + len(copied), 0xF1FA, 1) + copied
    psd = b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, 16, 16, 8, 3) + struct.pack(">III", 0, 0, 0) + b"\0\0" + rgb
    sun = struct.pack(">8I", 0x59A66A95, 16, 16, 24, len(rgb), 1, 0, 0) + rgb
    cur = struct.pack("<HHH", 0, 2, 1) + struct.pack("<BBBBHHII", 16, 16, 0, 0, 0, 0, 40 + 3 * 256 + 64, 22)
    cur += struct.pack("<IiiHHIIiiII", 40, 16, 32, 1, 24, 0, 0, 0, 0, 0, 0) + rgb + bytes(64)
    dcx = struct.pack("<III", 0x3ADE68B1, 12, 0) + sample("PCX", "RGB")
    fits = "".join(f"{line:80}" for line in ["SIMPLE  =                    T", "BITPIX  =                    8"])
    fits += "".join(f"{line:80}" for line in ["NAXIS   = 2", "NAXIS1  = 16", "NAXIS2  = 16", "END"])
    xpm = (
        '/* XPM */\nstatic char *x[] = {\n"16 2 2 1",\n"a c #ff0000",\n"b c #00ff00",\n'
        + '"abababababababab",\n' * 2
        + "};"
    )
    gbr = struct.pack(">7I", 28 + 5, 2, 16, 16, 1, 0x47494D50, 10) + b"name\0" + rgb[:256]
    return {
        "FLI": struct.pack("<I", len(fli) + len(frame)) + fli[4:] + frame,
        "PSD": psd,
        "SUN": sun,
        "CUR": cur,
        "DCX": dcx,
        "FITS": fits.encode().ljust(2880) + rgb[:256],
        "XPM": xpm.encode(),
        "GBR": gbr,
    }


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


@pytest.fixture
def all_formats(monkeypatch):
    """Every decoder of Pillow but the one that runs another program."""
    Image.init()
    monkeypatch.setattr(picture_decode, "FORMATS", tuple(sorted(set(Image.OPEN) - {"EPS", "WMF"})))


CASES = [(kind, mode) for kind, modes in SAVED.items() for mode in modes] + [(kind, "") for kind in built()]


@pytest.mark.parametrize(("kind", "mode"), CASES)
@pytest.mark.parametrize("mutations", [FEW, pytest.param(ALL, marks=pytest.mark.nightly)])
def test_damaged_files_are_pictures_or_rejected(kind, mode, mutations, all_formats, capfd):
    whole = sample(kind, mode) if mode else built()[kind]
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
