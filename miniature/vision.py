"""Teaches the tiny student's vision tower to see before it learns to speak, as real VLMs start from a trained vision
encoder.
"""

import random
from typing import Any

import torch

from miniature.world import COLOURS, SIZE, draw, random_scene
from safer_steer.progress import ProgressBar
from safer_steer.vlm import QWEN2_5_VL

BATCH = 64  # pictures
LEARNING_RATE = 3e-3  # one-cycle
SHARPNESS = 12.0  # of the softmax over cosines
TOKENS = (SIZE // QWEN2_5_VL.picture_unit) ** 2  # merged picture tokens of one picture


def pretrain_vision(model: Any, processor: Any, steps: int, seed: int) -> dict[str, float]:
    """Trains the tower so that the mean of a picture's tokens points at the output embedding of its colour.

    A contrastive alignment with words, as in CLIP; the seal has a throw-away linear head. Only training pairs of colour
    and shape are shown.

    Returns:
        Accuracy for colour and seal on the last batch, in [0, 1].
    """
    vision, colours = model.model.visual, list(COLOURS)
    seal_head = torch.nn.Linear(model.config.text_config.hidden_size, 2)
    words = _word_directions(model, processor.tokenizer, colours)
    parameters = [*vision.parameters(), *seal_head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.1)
    accuracy = [0.0, 0.0]
    with ProgressBar("vision steps", steps) as bar:
        for step in range(steps):
            rng = random.Random(f"vision/{seed}/{step}")
            scenes = [random_scene(rng, held_out=False, sealed=rng.random() < 0.5) for _ in range(BATCH)]
            inputs = processor.image_processor(images=[draw(scene, rng) for scene in scenes], return_tensors="pt")
            features = (
                vision(inputs.pixel_values, grid_thw=inputs.image_grid_thw)
                .pooler_output.view(BATCH, TOKENS, -1)
                .mean(dim=1)
            )
            facts = [[colours.index(s.colour), int(s.sealed)] for s in scenes]
            targets = torch.tensor(facts).T
            directions = torch.nn.functional.normalize(features, dim=-1)
            logits = [SHARPNESS * directions @ words.T, seal_head(features)]
            loss = sum(
                torch.nn.functional.cross_entropy(out, target) for out, target in zip(logits, targets, strict=True)
            )
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            accuracy = [
                (out.argmax(dim=1) == target).float().mean().item() for out, target in zip(logits, targets, strict=True)
            ]
            bar.advance(f"loss {loss.item():.3f}")
    return dict(zip(("colour", "seal"), accuracy, strict=True))


def _word_directions(model: Any, tokenizer: Any, names: Any) -> torch.Tensor:
    """Unit vectors `(names, hidden)`: the output embeddings of words, each of which is one token."""
    ids = [tokenizer.encode(f" {name}", add_special_tokens=False) for name in names]
    if any(len(tokens) != 1 for tokens in ids):
        raise ValueError(f"words of the miniature must be single tokens: {dict(zip(names, ids, strict=True))}")
    return torch.nn.functional.normalize(model.lm_head.weight[[tokens[0] for tokens in ids]].detach(), dim=-1)
