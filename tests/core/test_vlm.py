"""Model families: found by processor and by tokenizer, and named in one file only."""

import ast
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers import AutoTokenizer, InternVLProcessor, Qwen2VLProcessor

from safer_steer.errors import UserError
from safer_steer.picture_size import MAX_PIXELS, PictureSize
from safer_steer.vlm import FAMILIES, GEMMA3, QWEN2_5_VL, QWEN3_VL, family_of, family_of_type
from tiny_families import NEEDS_REAL_TOKENIZER, QWEN, REAL_TOKENIZER, config_of_type, gemma3_processor, processor_of

ROOT = Path(__file__).resolve().parents[2]
MAKERS = {"safer_steer/vlm.py", "miniature/student.py", "rehearsal/weights.py"}  # the table, and two that build one


@pytest.mark.parametrize("family", QWEN, ids=lambda family: family.name)
def test_a_family_is_known_by_its_processor_by_its_config_and_has_its_picture_sizes(family):
    processor = processor_of(family)
    assert family_of(processor.tokenizer, processor) == family_of_type(family.model_types[0]) == family
    assert family_of(processor.tokenizer).tokens() == family.tokens()
    assert PictureSize.of(processor.image_processor, MAX_PIXELS) == family.pictures(MAX_PIXELS)
    vision = config_of_type(family.model_types[0]).vision_config
    assert vision.patch_size * vision.spatial_merge_size == family.picture_unit


@NEEDS_REAL_TOKENIZER
def test_a_real_tokenizer_of_the_family_is_known():
    assert family_of(AutoTokenizer.from_pretrained(REAL_TOKENIZER)) in (QWEN2_5_VL, QWEN3_VL)


def test_the_third_family_is_known_and_its_pictures_have_one_number_of_tokens():
    processor = gemma3_processor()
    assert family_of(processor.tokenizer, processor) == family_of(processor.tokenizer) == GEMMA3
    size = PictureSize.of(processor, 1_000_000)
    assert size == GEMMA3.pictures(896**2)
    for sides in ((28, 28), (900, 300), (1001, 1001), (28, 5600)):
        assert size.tokens(*sides) == processor.image_seq_length == 256
    with pytest.raises(UserError, match="max_pixels 262144 is below the checkpoint's own smallest picture, 802816 px"):
        PictureSize.of(processor, 262144)


def test_an_unknown_family_is_refused_with_what_is_known():
    names = re.escape(", ".join(family.name for family in FAMILIES))
    with pytest.raises(UserError, match=f"known model family; known: {names}; add an entry"):
        family_of(SimpleNamespace(get_vocab=lambda: {"<s>": 0}))


def test_a_processors_class_decides_whatever_tokens_its_vocabulary_holds():
    ours = processor_of(QWEN2_5_VL)
    parts = {name: getattr(ours, name) for name in ("image_processor", "tokenizer", "video_processor")}
    assert family_of(ours.tokenizer, Qwen2VLProcessor(**parts)) == QWEN2_5_VL
    names = ("start_image_token", "end_image_token", "start_image_token_id", "end_image_token_id")
    names += ("context_image_token", "context_image_token_id", "video_token")
    for name in names:
        setattr(ours.tokenizer, name, 0 if name.endswith("_id") else QWEN2_5_VL.picture)
    with pytest.raises(UserError, match="InternVLProcessor: not of a known model family"):
        family_of(ours.tokenizer, InternVLProcessor(**parts))


def test_no_other_file_names_a_familys_tokens():
    tokens = {token for family in FAMILIES for token in family.tokens()}
    found = []
    files = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in files.split():
        if name in MAKERS or name.startswith("tests/"):
            continue
        tree = ast.parse((ROOT / name).read_text(encoding="utf-8"))
        texts = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
        documented = (ast.Module, ast.FunctionDef, ast.ClassDef)
        docs = {ast.get_docstring(n, clean=False) for n in ast.walk(tree) if isinstance(n, documented)}
        found += [f"{name}: {token}" for text in texts - docs for token in tokens if token in text]
    assert not found, f"take them from safer_steer/vlm.py: {found}"
