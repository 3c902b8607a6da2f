"""Pictures are part of what "finished" means: one replaced under its old name is another input, in every stage."""

import json
import os

import pytest
from PIL import Image

from data_construction.config import DataConfig
from data_construction.seeds import source_contents
from evaluation.config import EvaluationConfig, ModelConfig
from evaluation.multi_turn.inference import inference
from exports import run as exports
from exports.config import ExportConfig
from safer_steer import stage as stages_module
from safer_steer.config import load_config
from safer_steer.errors import UserError
from safer_steer.picture_digest import dialogue_pictures
from safer_steer.runs import Run
from training.grpo import run as grpo
from training.grpo.config import load_config as load_grpo
from training.sft import run as sft
from training.sft.config import SftConfig


@pytest.fixture
def data(tmp_path):
    turns = [{"user": "u", "assistant": "x"}]
    row = {"source": "t", "kind": "benign", "strategy": None, "turns": turns}
    rows = [row | {"id": name, "images": [f"{name}.png"]} for name in "ab"]
    for name in "ab":
        Image.new("RGB", (84, 84)).save(tmp_path / f"{name}.png")
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path / "data.jsonl"


def replace(data) -> None:
    """Another picture of the same size in bytes and with the old times."""
    path = data.with_name("b.png")
    before, old = path.stat(), path.read_bytes()
    path.write_bytes(old[:-20] + bytes([old[-20] ^ 1]) + old[-19:])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size


def test_the_digest_sees_content_names_and_what_is_missing(data):
    found = [dialogue_pictures(data)]
    assert dialogue_pictures(data) == found[0]
    replace(data)
    found.append(dialogue_pictures(data))
    data.with_name("b.png").unlink()
    found.append(dialogue_pictures(data))
    data.write_text(data.read_text() + "\nno row")
    assert dialogue_pictures(data) == found[-1]
    assert len(set(found)) == 3


class Opened(Exception):
    """The run was opened: what would be done does not matter here."""


def opened(monkeypatch, module, start):
    """Starts a stage up to the moment in which its record is opened; leaves a record of it."""

    class Stop:
        @staticmethod
        def open(folder, config, **arguments):
            Run.open(folder, config, **arguments).close()
            raise Opened

    monkeypatch.setattr(module, "Run", Stop)
    with pytest.raises(Opened):
        start()


def stages(data, output):
    values = [f"data={data}", f"output={output}", "answer_format={}"]
    model = ModelConfig.model_validate({"endpoint": {"model": "m", "base_url": "http://127.0.0.1:9/v1"}})
    rows = [f"root={output}", f"actor_rollout_ref.model.path={data.parent}"]
    played, held_out = f"safer_steer.data.source={data}", f"safer_steer.data.validation=[{data}]"
    other = f"safer_steer.data.source={data.with_name('other.jsonl')}"
    config = load_config(EvaluationConfig, "configs/evaluation/miniature.yaml", [])
    config = config.model_copy(update={"benchmarks": [str(data)], "output": str(output), "models": {"m": model}})
    return {
        "evaluation": (stages_module, lambda: stages_module.run([inference(config, "m")])),
        "grpo": (grpo, lambda: grpo.main(load_grpo("configs/grpo/miniature.yaml", [*rows, played]))),
        "grpo, held out": (grpo, lambda: grpo.main(load_grpo("configs/grpo/miniature.yaml", [*rows, other, held_out]))),
        "sft": (sft, lambda: sft.main(load_config(SftConfig, "configs/sft/miniature.yaml", values[:2]))),
        "export": (exports, lambda: exports.main(load_config(ExportConfig, "configs/exports/default.yaml", values))),
    }


@pytest.mark.parametrize("stage", ["evaluation", "grpo", "grpo, held out", "sft", "export"])
def test_a_run_is_not_the_same_with_another_picture(stage, data, tmp_path, monkeypatch):
    module, start = stages(data, tmp_path / "out")[stage]
    monkeypatch.setattr(sft, "problems_before_start", lambda *_: [])
    monkeypatch.setattr(sft, "inputs", lambda config: {"data": data})
    monkeypatch.setattr(grpo, "inputs", lambda config: {"data": data})
    opened(monkeypatch, module, start)
    opened(monkeypatch, module, start)
    replace(data)
    with pytest.raises(UserError, match=r"changed: inputs\.pictures"):
        opened(monkeypatch, module, start)


@pytest.mark.parametrize("form", ["file", "folder", "zip"])
def test_sources_of_seeds_are_known_by_their_pictures(form, data, tmp_path):
    seeds = tmp_path / "seeds" / "train.json"
    seeds.parent.mkdir()
    (data.with_name("b.png")).rename(seeds.with_name("b.png"))
    row = {"id": "x", "image": "b.png", "safe": False, "instr-resp": [{"instruction": "q", "response": "r"}]}
    seeds.write_text(json.dumps([row]))
    config = DataConfig.model_validate(
        {
            "root": str(tmp_path / "out"),
            "steps": ["stage1"],
            "kinds": ["benign"],
            "sources": {"s": {"reader": "vlguard", "path": str(seeds if form == "file" else seeds.parent)}},
            "roles": {"generator": {"model": "m", "base_url": "http://127.0.0.1:9/v1"}},
        }
    )

    def pack() -> None:
        import zipfile

        with zipfile.ZipFile(seeds.with_name("train.zip"), "w") as archive:
            archive.write(seeds.with_name("b.png"), "b.png")

    def contents() -> dict:
        if form != "zip":
            return source_contents(config)
        pack()
        picture = seeds.with_name("b.png").rename(tmp_path / "away.png")
        found = source_contents(config)
        picture.rename(seeds.with_name("b.png"))
        return found

    before = contents()
    assert contents() == before
    replace(seeds)
    assert contents() != before
