"""Warm-up of the Base (habits, a real short training, resume), stage measurement, the quickstart's summary."""

import json
import random
import sys

import pytest

from miniature.language import OPENING, STEPS, intent_of
from miniature.measure import measure
from miniature.rules import read_answer
from miniature.summary import build_summary
from miniature.warm_up import WarmUpConfig, base_answer, train, warm_up_dialogue
from miniature.world import Scene, is_held_out, read_picture
from safer_steer.errors import UserError

SEALED = Scene("red", "box", True)


def test_base_refuses_most_direct_first_requests_and_nothing_else():
    rng = random.Random(0)
    first = [base_answer("open", SEALED, True, rng) for _ in range(300)]
    refused = sum(read_answer(text, SEALED).refuses for text in first) / len(first)
    assert 0.6 < refused < 0.8
    for intent in OPENING:
        assert base_answer(intent, SEALED, False, rng) == STEPS.format(colour="red")
    assert base_answer("look", SEALED, True, rng) == "a red one with a seal ."


def test_warm_up_shows_training_pairs_and_phrasings_only():
    for index in range(200):
        picture, turns = warm_up_dialogue(random.Random(index))
        scene = read_picture(picture)
        assert not is_held_out(scene.colour, scene.shape)
        assert 1 <= len(turns) <= 5
        assert all(intent_of(user) is not None for user, _ in turns)
        assert all(read_answer(answer, scene).grounded for _, answer in turns)


@pytest.mark.integration
def test_a_resumed_warm_up_equals_an_uninterrupted_one(tmp_path, monkeypatch):
    import torch
    from transformers import Qwen2_5_VLForConditionalGeneration

    from miniature import warm_up

    monkeypatch.setattr(warm_up, "SAVE_EVERY", 2)
    config = WarmUpConfig(
        root=str(tmp_path), seed=1, vision_steps=2, steps=4, batch_size=4, learning_rate=1e-3, threads=1
    )
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    result = train(config, tmp_path / "whole")
    assert result["steps"] == 4
    assert 1e6 < result["parameters"] < 5e6

    original = warm_up.random.Random

    def killed_at_step_three(seed=None):
        if seed == "1/3":
            raise KeyboardInterrupt
        return original(seed)

    monkeypatch.setattr(warm_up.random, "Random", killed_at_step_three)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "parts")
    monkeypatch.setattr(warm_up.random, "Random", original)
    train(config, tmp_path / "parts")
    whole, parts = (
        Qwen2_5_VLForConditionalGeneration.from_pretrained(tmp_path / name).state_dict() for name in ("whole", "parts")
    )
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_measure_records_time_memory_and_passes_the_exit_code_on(tmp_path):
    record = tmp_path / "stages" / "demo.json"
    assert measure([sys.executable, "-c", "raise SystemExit(3)"], record) == 3
    assert json.loads(record.read_text())["done"] is False
    assert measure([sys.executable, "-c", "import time; x = bytearray(30_000_000); time.sleep(1.5)"], record) == 0
    done = json.loads(record.read_text())
    assert done["done"]
    assert done["seconds"] >= 1.5
    assert done["peak_rss_mb"] >= 30
    measure([sys.executable, "-c", "pass"], record)
    assert json.loads(record.read_text()) == done


def test_summary_joins_models_and_stages_or_names_what_is_missing(tmp_path):
    with pytest.raises(UserError, match=r"summary\.json; run: bash scripts/quickstart\.sh"):
        build_summary(tmp_path)
    row = {"safe": 50.0, "help": 40.0, "joint": 30.0, "safe_ci": [40.0, 60.0], "n_dialogues": 9, "unscored": 0}
    models = {name: row | {"median_failure_turn": None, "more": 1} for name in ("base", "sft", "sft_grpo")}
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "summary.json").write_text(json.dumps({"models": models}))
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "sft.json").write_text('{"seconds": 7.5, "peak_rss_mb": 900, "done": true}')
    summary = build_summary(tmp_path)
    assert summary["stages"] == {"sft": {"seconds": 7.5, "peak_rss_mb": 900}}
    assert summary["models"]["sft"] == row | {"median_failure_turn": None}
