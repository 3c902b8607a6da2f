"""SFT on TRL's real trainer and a tiny Qwen2.5-VL: batches, frozen parts, exact resume, NaN guard."""

import copy
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from trl import SFTTrainer

from miniature.student import build_model, build_tokenizer
from safer_steer.errors import UserError
from safer_steer.store import read_jsonl
from safer_steer.vlm import GEMMA3, QWEN3_VL
from tiny_families import QWEN, gemma3_model, gemma3_processor, model_of, processor_of
from training.sft.collator import DialogueCollator
from training.sft.config import FreezeConfig
from training.sft.data import prepare
from training.sft.encode import IGNORED
from training.sft.model import freeze, load_processor
from training.sft.run import main

pytestmark = pytest.mark.integration
STEPS = 8


@pytest.fixture
def whole(untouched):
    """The folder of the uninterrupted run."""
    return Path(untouched.output)


def test_run_writes_what_it_promises(untouched, whole, world, capsys):
    log = list(read_jsonl(whole / "log.jsonl"))
    assert [row["step"] for row in log] == list(range(1, STEPS + 1))
    assert all(math.isfinite(row["loss"]) for row in log)
    assert log[-1]["loss"] < log[0]["loss"]
    assert log[0]["learning_rate"] < max(row["learning_rate"] for row in log) == pytest.approx(5e-4)
    assert list(read_jsonl(whole / "rejects.jsonl")) == []
    assert Image.open(whole / "loss.png").size[0] > 400
    assert not (whole / "eval.jsonl").exists(), "nothing was held out"
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(whole / "checkpoint")
    assert processor.chat_template
    assert processor.tokenizer.eos_token == "<|im_end|>"
    model = AutoModelForImageTextToText.from_pretrained(whole / "checkpoint", dtype=torch.float32)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    for name in ("config.json", "generation_config.json"):
        before, after = (json.loads((folder / name).read_text()) for folder in (world / "base", whole / "checkpoint"))
        assert before.items() <= after.items(), f"{name} changed"
    assert main(untouched) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_resumed_run_equals_the_uninterrupted_one(whole, config_for, weights):
    """A run killed after its last checkpoint, before the export; the log is torn, another save half there."""
    config = config_for("resumed", "training.save_every=1")
    output = Path(config.output)
    shutil.copytree(whole / "trainer", output / "trainer")
    torn = output / "trainer" / f"checkpoint-{STEPS + 1}"
    torn.mkdir()
    (torn / "model.safetensors").write_bytes(b"half")
    (output / "log.jsonl").write_text((whole / "log.jsonl").read_text(encoding="utf-8") + '{"step": ', encoding="utf-8")
    assert main(config) == 0
    log, wanted = (list(read_jsonl(folder / "log.jsonl")) for folder in (output, whole))
    assert [row["step"] for row in log] == list(range(1, STEPS + 1))
    assert [row["num_tokens"] for row in log] == [row["num_tokens"] for row in wanted]
    assert [row["loss"] for row in log] == pytest.approx([row["loss"] for row in wanted], abs=1e-6)
    ours, theirs = weights(output / "checkpoint"), weights(whole / "checkpoint")
    assert ours.keys() == theirs.keys()
    assert max((ours[name] - theirs[name]).abs().max().item() for name in ours) < 1e-6
    for name in ("config.json", "generation_config.json"):
        assert (output / "checkpoint" / name).read_bytes() == (whole / "checkpoint" / name).read_bytes()


@pytest.mark.parametrize(("family", "lora"), [(QWEN3_VL, False), (QWEN3_VL, True), (GEMMA3, False)])
def test_other_families_train_and_their_checkpoints_are_whole(world, config_for, weights, family, lora):
    """With a frozen tower: the projectors, Qwen3-VL's deepstack mergers too, learn with the language model."""
    base = world / family.model_types[0]
    if not base.is_dir():
        torch.manual_seed(0)
        processor = gemma3_processor(56, 4) if family is GEMMA3 else processor_of(family, min_pixels=4096)
        model = gemma3_model(processor) if family is GEMMA3 else model_of(family, processor.tokenizer)
        for part in (model, processor):
            part.save_pretrained(base)
    adapter = ("lora.rank=4", "lora.alpha=8") if lora else ()
    places = (f"model={base}", "images.max_pixels=4096", "freeze.vision_tower=true")
    config = config_for(f"{base.name}-{lora}", *places, *adapter)
    assert main(config) == 0
    log = list(read_jsonl(Path(config.output) / "log.jsonl"))
    assert log[-1]["loss"] < log[0]["loss"]
    before, after = weights(base), weights(Path(config.output) / "checkpoint")
    assert before.keys() == after.keys()
    learnt = {name for name in before if not torch.equal(before[name], after[name])}
    projectors = [at.rpartition(".")[2] for at in family.projectors]
    tower = {name for name in learnt if family.vision_tower in name}
    assert all(any(part in name for part in projectors) for name in tower)
    for part in (*projectors, "layers.0"):
        assert any(part in name for name in learnt), part
    from transformers import AutoProcessor

    assert type(AutoProcessor.from_pretrained(Path(config.output) / "checkpoint")).__name__ in family.processors


def test_loss_that_is_not_a_number_stops_the_run(world, config_for, weights):
    config = config_for("nan")
    spoilt = world / "spoilt"
    shutil.copytree(world / "base", spoilt)
    from safetensors.torch import save_file

    tensors = weights(spoilt)
    name = next(name for name in tensors if name.endswith("norm.weight"))
    save_file(
        tensors | {name: torch.full_like(tensors[name], math.nan)}, spoilt / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(UserError, match="loss is nan at step 1"):
        main(config.model_copy(update={"model": str(spoilt)}))
    assert not (Path(config.output) / "checkpoint").exists()


def test_a_gradient_norm_that_is_no_number_stops_the_run_before_the_step(config_for, monkeypatch):
    config = config_for("no_norm")
    monkeypatch.setattr(SFTTrainer, "_get_grad_norm", lambda *_, **__: torch.tensor(math.inf))
    with pytest.raises(UserError, match=r"gradient norm is inf at step 1: .*max_grad_norm"):
        main(config)
    assert not (Path(config.output) / "checkpoint").exists()
    assert not list((Path(config.output) / "trainer").glob("checkpoint-*"))


@pytest.mark.parametrize("family", QWEN, ids=lambda family: family.name)
@pytest.mark.parametrize(("tower", "projector"), [(True, False), (False, True), (False, False)])
def test_each_freeze_flag_does_its_own_part(tower, projector, family):
    model = model_of(family, build_tokenizer(), layers=1)
    freeze(model, FreezeConfig(vision_tower=tower, projector=projector))
    for name, parameter in model.named_parameters():
        frozen = projector if "merger" in name else tower and "visual" in name
        assert parameter.requires_grad is not frozen, name


@pytest.fixture(scope="module")
def batch_parts(config_for):
    config = config_for("unused")
    processor = load_processor(config)
    torch.manual_seed(1)
    model = build_model(processor.tokenizer, hidden_size=64, layers=2)
    return processor, model, prepare(config, processor).rows


def test_batch_equals_the_processors_own(batch_parts):
    processor, _, rows = batch_parts
    batch = DialogueCollator(processor)(rows[:4])
    assert batch["input_ids"].shape == batch["labels"].shape == batch["attention_mask"].shape
    texts = [
        processor.tokenizer.decode([t for t in row["input_ids"] if t != processor.image_token_id]).replace(
            "<|vision_start|>", "<|vision_start|><|image_pad|>"
        )
        for row in rows[:4]
    ]
    pictures = [Image.open(path) for row in rows[:4] for path in row["pictures"]]
    wanted = processor(text=texts, images=pictures, padding=True, padding_side="right", return_tensors="pt")
    for name in ("input_ids", "attention_mask", "mm_token_type_ids", "pixel_values", "image_grid_thw"):
        assert torch.equal(batch[name], wanted[name]), name


def test_text_only_batch_still_runs_the_vision_tower(batch_parts):
    processor, model, rows = batch_parts
    text_only = [row for row in rows if not row["pictures"]][:2]
    batch = DialogueCollator(processor)(text_only)
    assert batch["input_ids"].shape[0] == 3
    assert (batch["labels"][2] == IGNORED).all()
    model.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    assert all(p.grad is not None and not p.grad.any() for n, p in model.named_parameters() if "visual" in n)
    plain = {name: batch[name][:2] for name in ("input_ids", "attention_mask", "labels")}
    assert loss.item() == pytest.approx(model(**plain).loss.item(), abs=1e-5)


def test_masked_positions_have_no_gradient(batch_parts):
    processor, model, rows = batch_parts
    batch = DialogueCollator(processor)(rows[:4])
    labels = batch.pop("labels")
    logits = model(**batch).logits
    logits.retain_grad()
    model.loss_function(logits=logits, labels=labels, vocab_size=logits.shape[-1]).backward()
    predicts = torch.nn.functional.pad(labels, (0, 1), value=IGNORED)[:, 1:] != IGNORED
    assert not logits.grad[~predicts].any()
    assert logits.grad[predicts].abs().sum(-1).gt(0).all()


def test_changed_picture_is_named(batch_parts, tmp_path):
    processor, _, rows = batch_parts
    processor = copy.deepcopy(processor)
    processor.image_processor.size = {"shortest_edge": 784, "longest_edge": 4 * 3136}  # else every picture has 4 tokens
    Image.new("RGB", (112, 112)).save(tmp_path / "other.png")
    row = next(row for row in rows if row["pictures"])
    with pytest.raises(UserError, match=row["id"]):
        DialogueCollator(processor)([row | {"pictures": [str(tmp_path / "other.png")]}])
