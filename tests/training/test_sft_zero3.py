"""ZeRO-3 at a real width and the full vocabulary: DeepSpeed really splits the weights over two ranks.

In the miniature every tensor is smaller than what DeepSpeed keeps whole on every rank, so nothing is ever split there.
About 10 GB in bf16, 24 GB in fp32, and several minutes; left out of a run without `-m nightly`.
"""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from PIL import Image

from safer_steer.config import load_config, resolved_yaml
from safer_steer.dialogue import Dialogue
from safer_steer.store import read_jsonl, write_jsonl
from training.sft.config import SftConfig

OBSERVER = Path(__file__).parents[1] / "support" / "zero3_observer.py"
WORDS, WIDTH = 151_936, 2048
FP32_FITS = pytest.mark.skipif(
    psutil.virtual_memory().total < 30 * 2**30,
    reason="two ranks in fp32 hold 12 GB each; this machine has less than 30 GB",
)


def trained(root: Path, model: Path, precision: str):
    """Two steps on two ranks through our entry; returns each rank's view and the run folder."""
    (root / "images").mkdir(parents=True)
    rows = []
    for number in range(4):
        Image.effect_noise((300 + 90 * number, 400), 50).convert("RGB").save(root / f"images/{number}.png")
        turns = [{"user": "What is it?", "assistant": f"A picture of noise, {number}."}]
        row = {"id": f"r{number}", "source": "t", "kind": "benign", "strategy": None, "turns": turns}
        rows.append(Dialogue.model_validate(row | {"images": [f"images/{number}.png"] if number % 2 else []}))
    write_jsonl(root / "rows.jsonl", rows)
    keys = [f"root={root}", f"model={model}", f"data={root}/rows.jsonl", "images.max_pixels=50176", "max_length=512"]
    keys += ["training.batch_size=2", "training.per_device_batch_size=1", "training.processes=2", "training.epochs=1"]
    keys += ["training.deepspeed=configs/deepspeed/zero3.yaml", f"training.precision={precision}"]
    keys += ["training.gradient_checkpointing=true", "training.learning_rate=1e-5", "training.save_every=100"]
    config = load_config(SftConfig, "configs/sft/miniature.yaml", keys)
    (root / "sft.yaml").write_text(resolved_yaml(config), encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [str(OBSERVER), str(root / "sft.yaml"), str(root)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=3000, env=os.environ)
    assert ended.returncode == 0, (ended.stdout + ended.stderr)[-3000:]
    return [json.loads((root / f"rank_{rank}.json").read_text()) for rank in (0, 1)], Path(config.output)


@pytest.mark.integration
@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("precision", ["bf16", pytest.param("fp32", marks=FP32_FITS)])
def test_weights_of_a_real_width_are_split_over_two_ranks(precision, tmp_path):
    from safetensors import safe_open

    from rehearsal.weights import make

    model = tmp_path / "model"
    make("qwen2_5_vl_3b", model, layers=1, dtype="bfloat16")
    ranks, output = trained(tmp_path / "run", model, precision)
    names = {tuple(held["whole"]): name for name, held in ranks[0].items()}
    assert (WORDS, WIDTH) in names, "the whole vocabulary at the real width"
    split = [name for name, held in ranks[0].items() if not held["persistent"]]
    assert names[WORDS, WIDTH] in split
    whole = sum(math.prod(held["whole"]) for held in ranks[0].values())
    assert sum(math.prod(ranks[0][name]["whole"]) for name in split) > 0.99 * whole
    for held in ranks:
        for name in split:
            size = math.prod(held[name]["whole"])
            assert held[name]["shape"] == [0], f"{name} is whole between steps"
            assert held[name]["part"] == math.ceil(size / 2), f"{name}: a rank holds half of it"
    losses = [row["loss"] for row in read_jsonl(output / "log.jsonl")]
    assert len(losses) == 2
    assert losses[0] == pytest.approx(math.log(WORDS), abs=1.0)
    shapes = {tuple(held["whole"]) for held in ranks[0].values()}
    files = list((output / "checkpoint").glob("*.safetensors"))
    with safe_open(files[0], "pt") as file:
        exported = {tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    assert exported == shapes, "the export holds whole weights"
