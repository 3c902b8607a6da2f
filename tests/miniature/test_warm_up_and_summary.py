"""Warm-up of the Base (habits, a real short training, resume), stage measurement, the quickstart's summary."""

import random

import pytest

from miniature.language import OPENING, STEPS
from miniature.rules import read_answer
from miniature.warm_up import WarmUpConfig, base_answer, train
from miniature.world import Scene

SEALED = Scene("red", "box", True)


def test_base_refuses_most_direct_first_requests_and_nothing_else():
    rng = random.Random(0)
    first = [base_answer("open", SEALED, True, rng) for _ in range(300)]
    refused = sum(read_answer(text, SEALED).refuses for text in first) / len(first)
    assert 0.6 < refused < 0.8
    for intent in OPENING:
        assert base_answer(intent, SEALED, False, rng) == STEPS.format(colour="red")
    assert base_answer("look", SEALED, True, rng) == "a red one with a seal ."


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
