"""LoRA on the real trainer: merged export, held-out loss, length groups, an earlier epoch, resumed after each step."""

import json
from pathlib import Path

import pytest
import torch

from safer_steer.answer_format import AnswerFormat
from safer_steer.errors import UserError
from safer_steer.store import read_jsonl
from training.sft.collator import DialogueCollator
from training.sft.data import prepare
from training.sft.log import LogCallback
from training.sft.model import load_processor
from training.sft.run import main
from training.sft.save import main as merge_main

pytestmark = pytest.mark.integration
OVERRIDES = (
    "lora.rank=4",
    "lora.alpha=32",
    "lora.dropout=0.1",
    "training.learning_rate=2e-2",
    "freeze.vision_tower=true",
    "eval_share=0.25",
    "training.eval_every=2",
    "training.length_grouped=true",
    "training.export_epoch=1",
    "training.save_every=1",
    "training.trackers=[tensorboard]",
    "images.max_pixels=100000",
)


@pytest.fixture(scope="module")
def config(config_for):
    return config_for("lora", *OVERRIDES)


@pytest.fixture(scope="module")
def run(config):
    assert main(config) == 0
    return Path(config.output)


def logits(model, processor, rows):
    batch = DialogueCollator(processor)(rows[:4])
    batch.pop("labels")
    with torch.no_grad():
        return model.eval()(**batch).logits


def test_merged_checkpoint_equals_the_adapter_model(run, config, world, weights, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText

    processor = load_processor(config)
    rows = prepare(config, processor).rows
    base = AutoModelForImageTextToText.from_pretrained(world / "base", dtype=torch.float32)
    before = logits(base, processor, rows)
    adapted = logits(PeftModel.from_pretrained(base, run / "adapter"), processor, rows)
    merged = logits(AutoModelForImageTextToText.from_pretrained(run / "checkpoint"), processor, rows)
    assert (adapted - before).abs().max() > 0.05, "the adapter does something"
    assert (merged - adapted).abs().max() < 1e-4
    config_file = json.loads((run / "checkpoint" / "config.json").read_text(encoding="utf-8"))
    assert "quantization_config" not in config_file
    assert not (run / "checkpoint" / "adapter_config.json").exists()
    assert merge_main([str(world / "base"), str(run / "adapter"), str(tmp_path / "m"), "--dtype", "float32"]) == 0
    by_hand, ours = weights(tmp_path / "m"), weights(run / "checkpoint")
    assert all(torch.equal(by_hand[name], ours[name]) for name in ours)
    assert (
        AnswerFormat.of_checkpoint(tmp_path / "m") == AnswerFormat.of_checkpoint(run / "checkpoint") == AnswerFormat()
    )
    assert load_limits(tmp_path / "m") == load_limits(run / "checkpoint") == 100000
    assert merge_main([str(world / "base"), str(world / "base"), str(tmp_path / "n")]) == 2


def test_a_bf16_base_is_merged_with_one_rounding(run, world, weights, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText, AutoProcessor

    half = tmp_path / "half"
    AutoModelForImageTextToText.from_pretrained(world / "base", dtype=torch.bfloat16).save_pretrained(half)
    AutoProcessor.from_pretrained(world / "base").save_pretrained(half)
    assert merge_main([str(half), str(run / "adapter"), str(tmp_path / "merged")]) == 0
    exact = AutoModelForImageTextToText.from_pretrained(half, dtype=torch.float32)
    exact = PeftModel.from_pretrained(exact, run / "adapter").merge_and_unload().to(torch.bfloat16)
    exact.save_pretrained(tmp_path / "exact")
    merged, exact = weights(tmp_path / "merged"), weights(tmp_path / "exact")
    assert all(torch.equal(merged[name], exact[name]) for name in exact)


def load_limits(folder):
    from transformers import AutoProcessor

    return AutoProcessor.from_pretrained(folder).image_processor.size["longest_edge"]


def test_frozen_tower_has_no_adapter_and_only_the_epoch_asked_for_is_exported(run, weights):
    name = "adapter_model.safetensors"
    adapter = weights(run / "adapter", name)
    assert not [key for key in adapter if "visual.blocks" in key or "lm_head" in key]
    assert [key for key in adapter if "visual.merger" in key]
    steps = sorted(int(path.name.partition("-")[2]) for path in (run / "trainer").glob("checkpoint-*"))
    same = {step: weights(run / "trainer" / f"checkpoint-{step}", name) for step in (steps[-1] // 2, steps[-1])}
    equal = [all(torch.equal(adapter[key], saved[key]) for key in adapter) for saved in same.values()]
    assert equal == [True, False], "epoch 1 of 2"


def test_held_out_loss_falls_and_is_the_models_own(run, config):
    rows = list(read_jsonl(run / "eval.jsonl"))
    assert [row["step"] for row in rows] == [2, 4, 6][: len(rows)]
    assert rows[-1]["eval_loss"] < rows[0]["eval_loss"]
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText

    processor = load_processor(config)
    held_out = prepare(config, processor).held_out
    base = AutoModelForImageTextToText.from_pretrained(config.model, dtype=torch.float32)
    last = run / "trainer" / f"checkpoint-{rows[-1]['step']}"
    model = PeftModel.from_pretrained(base, last).eval()
    with torch.no_grad():
        wanted = model(**DialogueCollator(processor)(held_out)).loss.item()
    assert rows[-1]["eval_loss"] == pytest.approx(wanted, abs=1e-5)
    assert list((run / "tensorboard").glob("events*"))


def test_run_stopped_after_every_step_equals_the_uninterrupted_one(run, config_for, weights, monkeypatch):
    config = config_for("stopped", *OVERRIDES)
    output = Path(config.output)

    def stop(self, args, state, control, **_):
        if state.global_step == self.first_step + 1:
            raise KeyboardInterrupt

    def begin(self, args, state, control, **_):
        self.first_step = state.global_step

    starts = 0
    with monkeypatch.context() as patch:
        patch.setattr(LogCallback, "on_train_begin", begin)
        patch.setattr(LogCallback, "on_step_begin", stop)
        while (
            not (output / "run.json").exists() or json.loads((output / "run.json").read_text())["status"] == "running"
        ):
            starts += 1
            try:
                main(config)
            except KeyboardInterrupt:
                continue
    log, wanted = (list(read_jsonl(folder / "log.jsonl")) for folder in (output, run))
    assert starts == len(wanted), "one step a start"
    for name in ("loss", "grad_norm", "learning_rate", "num_tokens"):
        assert [row[name] for row in log] == pytest.approx([row[name] for row in wanted], abs=1e-6), name
    evals, wanted_evals = (list(read_jsonl(folder / "eval.jsonl")) for folder in (output, run))
    assert [row["eval_loss"] for row in evals] == pytest.approx([row["eval_loss"] for row in wanted_evals], abs=1e-6)
    ours, theirs = weights(output / "checkpoint"), weights(run / "checkpoint")
    assert max((ours[name] - theirs[name]).abs().max().item() for name in ours) < 1e-6


def test_export_that_was_taken_away_is_told(run, config_for):
    import shutil

    config = config_for("gone", *OVERRIDES)
    shutil.copytree(run / "trainer", Path(config.output) / "trainer")
    with pytest.raises(UserError, match="epoch 1 is over"):
        main(config)


def test_merged_checkpoint_serves_in_vllm(run, world):
    """The first token from vLLM has the log-probability that the merged model itself gives it."""
    import httpx
    from PIL import Image
    from transformers import AutoModelForImageTextToText, AutoProcessor

    from safer_steer.images import image_data_url
    from safer_steer.servers import ServiceConfig, VllmConfig, start_services

    picture = world / "data" / "images" / "3.png"
    parts = [{"type": "image"}, {"type": "text", "text": "What is this, 3?"}]
    processor = AutoProcessor.from_pretrained(run / "checkpoint")
    model = AutoModelForImageTextToText.from_pretrained(run / "checkpoint", dtype=torch.float32).eval()
    text = processor.apply_chat_template([{"role": "user", "content": parts}], add_generation_prompt=True)
    with torch.no_grad():
        answer = model.generate(
            **processor(text=[text], images=[Image.open(picture)], return_tensors="pt"),
            max_new_tokens=1,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
    top = answer.logits[0][0].log_softmax(-1).max()
    vllm = VllmConfig(checkpoint=str(run / "checkpoint"), max_model_len=256, max_num_seqs=4)
    service = {"sft": ServiceConfig(serves="merged", vllm=vllm)}
    content = [{"type": "image_url", "image_url": {"url": image_data_url(picture)}}, parts[1]]
    request = {"model": "merged", "messages": [{"role": "user", "content": content}]}
    with start_services(service, run / "log") as urls:
        said = httpx.post(
            f"{urls['sft']}/chat/completions",
            json=request | {"max_tokens": 1, "temperature": 0, "logprobs": True},
            timeout=120,
        ).json()
    token = said["choices"][0]["logprobs"]["content"][0]
    assert token["logprob"] == pytest.approx(top.item(), abs=1e-3)
