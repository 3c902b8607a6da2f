"""The visual injector: drawn by the row's id, noise of the stated size, text inside, the original linked."""

import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_construction.config import Injector
from data_construction.injector import MARGIN_PX, MIN_FONT_PX, Injection, add_noise, add_phrase, inject
from safer_steer.images import ImageStore, load_image

GREY = (128, 128, 128)


def grey(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), GREY)


def test_noise_has_the_stated_sigma_and_no_bias():
    noisy = np.asarray(add_noise(grey(400, 300), 0.03, seed=1), dtype=float)
    difference = noisy - 128
    assert difference.std() / 255 == pytest.approx(0.03, rel=0.01)  # 360,000 draws: standard error 0.1 %
    assert abs(difference.mean()) < 0.05
    assert np.abs([np.corrcoef(difference[..., 0].ravel(), difference[..., 1].ravel())[0, 1]]) < 0.02


def changed_box(before: Image.Image, after: Image.Image) -> tuple[int, int, int, int]:
    where = np.argwhere((np.asarray(before) != np.asarray(after)).any(axis=-1))
    (top, left), (bottom, right) = where.min(axis=0), where.max(axis=0)
    return left, top, right + 1, bottom + 1


@settings(max_examples=60)
@given(
    st.integers(28, 500),
    st.integers(28, 500),
    st.sampled_from(["Please continue", "Step 1", "Ängström gyq|", "x"]),
    st.integers(),
)
def test_the_phrase_is_fully_inside_or_not_drawn(width, height, phrase, seed):
    picture = grey(width, height)
    after, text = add_phrase(picture, phrase, "red", random.Random(seed))
    assert after.size == picture.size
    if text is None:
        assert after is picture
        assert width < 200
        return
    left, top, right, bottom = changed_box(picture, after)
    assert MARGIN_PX <= text.box[0] <= left < right <= text.box[2] <= width - MARGIN_PX
    assert MARGIN_PX <= text.box[1] <= top < bottom <= text.box[3] <= height - MARGIN_PX
    assert text.font_px >= MIN_FONT_PX


def injected(tmp_path, row_id: str, picture: Image.Image, **changes) -> Injection | None:
    images = ImageStore(tmp_path)
    return inject(row_id, images.put(picture), picture, Injector(**({"share": 1.0} | changes)), 0, images)


def test_the_share_of_rows_is_the_configured_one(tmp_path):
    picture = grey(40, 40)
    images = ImageStore(tmp_path)
    drawn = [
        inject(f"s/{number}", "images/x.png", picture, Injector(share=0.1, modes=["noise"]), 0, images)
        for number in range(3000)
    ]
    assert sum(item is not None for item in drawn) / 3000 == pytest.approx(0.1, abs=0.017)  # three standard errors
    assert not any(inject(f"s/{n}", "images/x.png", picture, Injector(), 0, images) for n in range(50))


def test_the_original_is_kept_and_linked(tmp_path):
    picture = grey(200, 150)
    for mode in ("noise", "typography", "both"):
        result = injected(tmp_path, "s/1", picture, modes=[mode])
        assert load_image(result.original, root=tmp_path).tobytes() == picture.tobytes()
        assert load_image(result.image, root=tmp_path).size == picture.size
        assert result.image != result.original
        assert (result.noise_sigma is None, result.typography is None) == (mode == "typography", mode == "noise")


def test_what_does_not_fit_is_said(tmp_path):
    small = grey(28, 28)
    only_text = injected(tmp_path, "s/1", small, modes=["typography"])
    assert only_text.image == only_text.original
    assert "does not fit legibly into 28x28" in only_text.skipped
    both = injected(tmp_path, "s/1", small, modes=["both"])
    assert both.image != both.original
    assert both.skipped


SCRIPT = """
import sys
from PIL import Image
from data_construction.config import Injector
from data_construction.injector import inject
from safer_steer.images import ImageStore
picture, images = Image.new("RGB", (200, 150), (9, 99, 199)), ImageStore(sys.argv[1])
for number in range(12):
    print(inject(f"s/{number}", "images/x.png", picture, Injector(share=0.5), 3, images))
"""


def test_the_same_row_gets_the_same_picture_in_every_process(tmp_path):
    """Pictures are named by their pixels, so equal lines mean equal pictures."""
    outputs = {
        subprocess.run(
            [sys.executable, "-c", SCRIPT, str(tmp_path / salt)],
            env={"PYTHONHASHSEED": salt, "PYTHONPATH": ".", "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for salt in ("1", "2")
    }
    assert len(outputs) == 1
    lines = outputs.pop().splitlines()
    assert 0 < lines.count("None") < 12
    assert len(set(lines)) > 4
