"""Weights out of verl's checkpoints: plain copies, merged LoRA adapters, and which step was the best."""

import json

import pytest
import torch

from miniature.student import build_model, build_processor
from safer_steer.errors import UserError
from safer_steer_verl.best import TRAINING, VALIDATION, BestCheckpoint
from safer_steer_verl.export import export_weights


def checkpoint(folder, step):
    weights = folder / f"global_step_{step}" / "actor" / "huggingface"
    weights.mkdir(parents=True)
    (weights / "model.safetensors").write_text(f"weights of {step}")
    return folder / f"global_step_{step}"


def test_export_replaces_the_folder_whole(tmp_path):
    saved, target = checkpoint(tmp_path / "saved", 4), tmp_path / "checkpoint"
    target.mkdir()
    (target / "old").write_text("x")
    export_weights(saved, target, 3136)
    assert {path.name for path in target.iterdir()} == {"model.safetensors", "answer_format.json"}
    (saved / "actor" / "huggingface" / "model.safetensors").unlink()
    with pytest.raises(UserError, match="hf_model"):
        export_weights(saved, target, 3136)
    assert (target / "model.safetensors").is_file()


@pytest.mark.parametrize(("said", "wanted"), [("bfloat16", "BF16"), ("float32", "F32")])
def test_exports_have_the_precision_that_the_config_names(tmp_path, said, wanted):
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "global_step_1" / "actor" / "huggingface"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"dtype": said}))
    parts = {f"model-0000{n}-of-00002.safetensors": {f"w{n}": torch.rand(8, 4), "n": torch.arange(3)} for n in (1, 2)}
    for name, weights in parts.items():
        save_file(weights, folder / name)
    index = {"metadata": {"total_size": 304, "more": 1}, "weight_map": {"w1": next(iter(parts))}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    export_weights(folder.parents[1], tmp_path / "out", 3136)
    for name, weights in parts.items():
        with safe_open(tmp_path / "out" / name, "pt") as file:
            names = list(file.keys())
            assert {file.get_slice(name).get_dtype() for name in names if name[0] == "w"} == {wanted}
        found = load_file(tmp_path / "out" / name)
        for key, tensor in weights.items():
            assert torch.equal(found[key].to(tensor.dtype), tensor.to(found[key].dtype).to(tensor.dtype))
    written = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert written == index | {"metadata": {"more": 1, "total_size": 2 * (64 if said == "bfloat16" else 128) + 48}}


def test_the_best_saved_step_by_the_training_reward_since_the_last_save(tmp_path):
    best = BestCheckpoint(tmp_path, 3136)
    scores = {1: 0.2, 2: 0.4, 3: 0.9, 4: 0.1, 5: 0.6, 6: 0.6}  # means of the pairs: .3 .5 .6
    kept = []
    for step, score in scores.items():
        saved = checkpoint(tmp_path / "saved", step) if step % 2 == 0 else None
        if best.note({TRAINING: score}, saved, step):
            kept.append(step)
    assert kept == [2, 4, 6]
    assert best.note({TRAINING: 0.5}, checkpoint(tmp_path / "saved", 8), 8) is False
    assert (tmp_path / "best" / "model.safetensors").read_text() == "weights of 6"
    assert json.loads((tmp_path / "best.json").read_text()) == {"step": 6, "score": 0.6, "measure": TRAINING}


def test_the_held_out_reward_counts_where_there_is_one_and_a_restart_remembers(tmp_path):
    first = BestCheckpoint(tmp_path, 3136)
    assert first.note({TRAINING: 0.9, VALIDATION: 0.5}, checkpoint(tmp_path / "saved", 2), 2)
    again = BestCheckpoint(tmp_path, 3136)
    assert not again.note({TRAINING: 1.0, VALIDATION: 0.4}, checkpoint(tmp_path / "saved", 4), 4)
    assert again.note({TRAINING: 0.1, VALIDATION: 0.6}, checkpoint(tmp_path / "saved", 6), 6)
    assert not again.note({TRAINING: 1.0}, checkpoint(tmp_path / "saved", 8), 8), "not held-out: says less"
    assert not again.note({VALIDATION: 0.55}, checkpoint(tmp_path / "saved", 10), 10)
    assert json.loads((tmp_path / "best.json").read_text())["step"] == 6


def test_a_best_step_that_will_be_done_again_is_forgotten(tmp_path):
    best = BestCheckpoint(tmp_path, 3136)
    assert best.note({TRAINING: 0.9}, checkpoint(tmp_path / "saved", 4), 4)
    best.rewind(4)
    assert (tmp_path / "best.json").is_file()
    best.rewind(2)
    assert best.note({TRAINING: 0.5}, checkpoint(tmp_path / "again", 4), 4)


@pytest.mark.integration
def test_a_lora_checkpoint_becomes_the_model_that_peft_would_merge(tmp_path):
    """The folder as verl writes it: PEFT's names under the model's own architecture, the scale beside it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForImageTextToText, Qwen2_5_VLForConditionalGeneration

    processor = build_processor()
    model = build_model(processor.tokenizer)
    adapted = get_peft_model(
        model, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", exclude_modules=".*visual.*")
    )
    torch.manual_seed(0)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    folder = tmp_path / "global_step_2" / "actor" / "huggingface"
    AutoModelForImageTextToText.from_config(model.config).save_pretrained(folder, state_dict=adapted.state_dict())
    processor.save_pretrained(folder)
    meta = {"r": 4, "lora_alpha": 8, "task_type": "CAUSAL_LM"}
    (folder.parent / "lora_train_meta.json").write_text(json.dumps(meta))

    export_weights(tmp_path / "global_step_2", tmp_path / "checkpoint", 3136)
    exported = Qwen2_5_VLForConditionalGeneration.from_pretrained(tmp_path / "checkpoint").state_dict()
    wanted = adapted.merge_and_unload().state_dict()
    assert exported.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.allclose(exported[name], tensor, atol=1e-6), name
    assert (tmp_path / "checkpoint" / "tokenizer_config.json").is_file()
