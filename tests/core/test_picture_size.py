"""One picture size for all stages: within the limits, kept as it is by every processor behind it, told apart when it
differs.
"""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from safer_steer.errors import UserError
from safer_steer.picture_size import (
    MAX_PIXELS,
    STORED_PIXELS,
    PictureSize,
    image_settings,
    limit_problem,
    stored_size,
    write_limit,
)

RELEASED = {"patch_size": 14, "merge_size": 2, "temporal_patch_size": 2, "min_pixels": 3136, "max_pixels": 12845056}
QWEN3 = {"patch_size": 16, "merge_size": 2, "size": {"shortest_edge": 65536, "longest_edge": 16777216}}
sides = st.integers(1, 20_000)


def saved(folder, settings, name="preprocessor_config.json"):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(settings))
    return str(folder)


@example(1024, 768, MAX_PIXELS, 14)  # 315 tokens in SFT and 300 in GRPO before there was one rule
@example(29, 5790, MAX_PIXELS, 14)  # rounding alone would make the ratio 207
@example(20, 40, 3136, 14)  # enlarging alone would pass the limit
@example(1, 1, MAX_PIXELS, 14)
@example(20_000, 100, MAX_PIXELS, 16)
@given(sides, sides, st.integers(3136, STORED_PIXELS), st.sampled_from([14, 16]))
def test_a_shown_picture_is_one_that_no_processor_changes(width, height, most, patch):
    """The processors' own code decides: transformers' (vLLM calls the same function) and qwen-vl-utils'."""
    from qwen_vl_utils.vision_process import smart_resize as utils_resize
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    unit = 2 * patch
    size = PictureSize(unit, 4 * unit**2, max(most, 4 * unit**2))
    if max(width, height) > min(200, size.max_pixels // unit**2) * min(width, height):
        with pytest.raises(ValueError, match="aspect ratio"):
            size.fit(width, height)
        return
    w, h = size.fit(width, height)
    assert size.fit(w, h) == (w, h)
    for limit in (size.max_pixels, 12845056):  # the stage's own, and that of the hub's checkpoint
        assert smart_resize(h, w, unit, min_pixels=size.min_pixels, max_pixels=limit) == (h, w)
    assert utils_resize(h, w, unit) == (h, w)
    assert size.tokens(width, height) == w * h // unit**2


@given(st.integers(28, 4000), st.integers(28, 4000))
def test_ordinary_pictures_get_the_size_that_the_models_own_rule_gives(width, height):
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    if max(width, height) <= 100 * min(width, height):
        expected = smart_resize(height, width, 28, min_pixels=3136, max_pixels=MAX_PIXELS)
        assert PictureSize().fit(width, height) == expected[::-1]


@given(sides, sides)
def test_what_ingest_stores_can_be_shown(width, height):
    try:
        stored = stored_size(width, height)
    except ValueError:
        assert max(width, height) > 190 * min(width, height)
        return
    assert stored[0] * stored[1] <= STORED_PIXELS
    PictureSize().fit(*stored)


def test_unit_and_limits_come_from_the_checkpoint(tmp_path):
    """Both file layouts that transformers writes, and another family's patches."""
    for name, content in (
        ("preprocessor_config.json", RELEASED),
        ("processor_config.json", {"image_processor": RELEASED, "processor_class": "Qwen2_5_VLProcessor"}),
    ):
        found = image_settings(saved(tmp_path / name.partition("_")[0], content, name))
        assert PictureSize.of(found) == PictureSize(28, 3136, 12845056)
        assert PictureSize.of(found, 262144) == PictureSize(28, 3136, 262144)
    found = image_settings(saved(tmp_path / "qwen3", QWEN3))
    assert PictureSize.of(found, 262144) == PictureSize(32, 65536, 262144)
    with pytest.raises(UserError, match="below the checkpoint's own smallest picture, 65536 px"):
        PictureSize.of(found, 3136)
    assert image_settings(saved(tmp_path / "llava", {"crop_size": 336})) is None
    assert image_settings(str(tmp_path)) is None
    (tmp_path / "qwen3" / "preprocessor_config.json").write_text("[1")
    with pytest.raises(UserError, match="not a JSON object"):
        image_settings(str(tmp_path / "qwen3"))
    with pytest.raises(UserError, match="Qwen-VL kind"):
        PictureSize.of(object(), 262144)


def test_a_checkpoint_says_for_which_size_it_was_trained(tmp_path):
    """A released one fits any; one of ours is refused where another size is asked for."""
    found = image_settings(saved(tmp_path / "hub", RELEASED))
    assert limit_problem(found, 262144) is None
    write_limit(tmp_path / "hub", 262144)
    ours = image_settings(str(tmp_path / "hub"))
    assert PictureSize.of(ours) == PictureSize(28, 3136, 262144)
    assert limit_problem(ours, 262144) is None
    assert "max_pixels is 100000, but the checkpoint's processor says 262144" in limit_problem(ours, 100000)
    assert json.loads((tmp_path / "hub/preprocessor_config.json").read_text())["temporal_patch_size"] == 2
