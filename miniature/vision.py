"""Teaches the tiny student's vision tower to see before it learns to speak, as real VLMs start from a trained vision
encoder.
"""

import random
from typing import Any

import torch

from miniature.world import COLOURS, SHAPES, SIZE, draw, random_scene
from safer_steer.progress import ProgressBar

BATCH = 64  # pictures
LEARNING_RATE = 3e-3  # one-cycle
TOKENS = (SIZE // 28) ** 2  # merged picture tokens of one picture


def pretrain_vision(
    vision: torch.nn.Module, image_processor: Any, hidden_size: int, steps: int, seed: int
) -> dict[str, float]:
    """Trains the tower and three throw-away linear heads to tell colour, shape and seal from the mean of the picture
    tokens.

    Only training pairs of colour and shape are shown.

    Returns:
        Accuracy of each head on the last batch, in [0, 1].
    """
    colours = list(COLOURS)
    heads = torch.nn.ModuleList(torch.nn.Linear(hidden_size, classes) for classes in (len(colours), len(SHAPES), 2))
    parameters = [*vision.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.1)
    accuracy = [0.0, 0.0, 0.0]
    with ProgressBar("vision steps", steps) as bar:
        for step in range(steps):
            rng = random.Random(f"vision/{seed}/{step}")
            scenes = [random_scene(rng, held_out=False, sealed=rng.random() < 0.5) for _ in range(BATCH)]
            inputs = image_processor(images=[draw(scene, rng) for scene in scenes], return_tensors="pt")
            features = (
                vision(inputs.pixel_values, grid_thw=inputs.image_grid_thw)
                .pooler_output.view(BATCH, TOKENS, -1)
                .mean(dim=1)
            )
            facts = [[colours.index(s.colour), SHAPES.index(s.shape), int(s.sealed)] for s in scenes]
            targets = torch.tensor(facts).T
            logits = [head(features) for head in heads]
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
    return dict(zip(("colour", "shape", "seal"), accuracy, strict=True))
