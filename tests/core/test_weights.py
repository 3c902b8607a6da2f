"""Recognising checkpoints."""

import pytest

from safer_steer.config import Section
from safer_steer.errors import UserError
from safer_steer.runs import Run
from safer_steer.weights import is_hub_id, weights_fingerprint


class Nothing(Section):
    """A config without keys."""


def checkpoint(folder, weights: bytes):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def test_new_weights_are_seen(tmp_path):
    folder = checkpoint(tmp_path / "model", b"a" * 3_000_000)
    before = weights_fingerprint(folder)
    assert weights_fingerprint(str(folder)) == before
    checkpoint(folder, b"a" * 2_900_000 + b"b" * 100_000)
    assert weights_fingerprint(folder) != before


def test_a_folder_without_config_or_weights_is_no_checkpoint(tmp_path):
    with pytest.raises(UserError, match="no checkpoint at"):
        weights_fingerprint(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"needs config\.json and \*\.safetensors"):
        weights_fingerprint(tmp_path)


@pytest.mark.parametrize(
    ("name", "hub"),
    [("Qwen/Qwen2.5-VL-3B-Instruct", True), ("outputs/model", False), ("./a/b", False), ("/a/b", False), ("a", False)],
)
def test_what_is_of_the_hub(name, hub, tmp_path, monkeypatch):
    (tmp_path / "outputs").mkdir()
    monkeypatch.chdir(tmp_path)
    assert is_hub_id(name) is hub


def test_a_run_knows_its_checkpoint_by_its_weights(tmp_path):
    model = checkpoint(tmp_path / "model", b"a" * 1000)
    with Run.open(tmp_path / "run", Nothing(), stage="x", inputs={"model": model}) as run:
        run.finish({})
    with Run.open(tmp_path / "run", Nothing(), stage="x", inputs={"model": model}) as run:
        assert run.finished
    checkpoint(model, b"b" * 1000)
    with pytest.raises(UserError, match=r"changed: inputs\.model"):
        Run.open(tmp_path / "run", Nothing(), stage="x", inputs={"model": model})
