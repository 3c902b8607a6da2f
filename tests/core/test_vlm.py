"""Model families: found by processor and by tokenizer, and named in one file only."""

import ast
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers import AutoTokenizer

from miniature.student import build_processor
from safer_steer.errors import UserError
from safer_steer.vlm import FAMILIES, QWEN_VL, family_of

ROOT = Path(__file__).resolve().parents[2]
TOKENIZER = ROOT.parent / "shared" / "data" / "qwen3_tokenizer"
MAKERS = {"safer_steer/vlm.py", "miniature/student.py", "rehearsal/weights.py"}  # the table, and two that build one


def test_a_family_is_known_by_its_processor_and_by_its_tokens():
    processor = build_processor()
    assert family_of(processor.tokenizer, processor) == family_of(processor.tokenizer) == QWEN_VL


@pytest.mark.skipif(not TOKENIZER.is_dir(), reason=f"the real tokenizer is not in {TOKENIZER}")
def test_a_real_tokenizer_of_the_family_is_known():
    assert family_of(AutoTokenizer.from_pretrained(TOKENIZER)) == QWEN_VL


def test_an_unknown_family_is_refused_with_what_is_known():
    with pytest.raises(UserError, match=r"not of a known model family; known: .*Qwen2.5-VL.*; add an entry"):
        family_of(SimpleNamespace(get_vocab=lambda: {"<s>": 0}))


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
