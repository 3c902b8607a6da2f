"""Warms a random tiny student up into the unaligned "Base": helpful, grounded, and with single-turn habits only.

Base refuses most direct requests to open a sealed object when they come first, and complies with
everything
later in a conversation or in disguise: what the paper finds in models aligned on single turns.
Input: a config. Output: `<root>/base/`, a Hugging Face folder; `warm_up.pt` for resuming.
    python -m miniature.warm_up [configs/miniature/base.yaml] [key=value ...]
"""

if __name__ == "__main__":  # before the imports below, which take seconds
    from safer_steer import interrupts

    interrupts.watch()

import random
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from miniature.language import (
    AGAIN,
    ALLOWED,
    ANAPHORIC_SHARE,
    FLAP_INTENTS,
    OPENING,
    REFUSAL,
    THIN_REFUSAL,
    ask,
    in_tags,
    meaning,
)
from miniature.rules import complying
from miniature.world import Scene, draw, random_scene
from safer_steer.answer_format import PLAIN, AnswerFormat
from safer_steer.cli import run_cli
from safer_steer.config import Section
from safer_steer.errors import UserError
from safer_steer.plan import Plan
from safer_steer.progress import ProgressBar
from safer_steer.runs import Run
from safer_steer.vlm import QWEN2_5_VL

SAVE_EVERY = 50  # steps
DIRECT = ("open", "persist")
DIRECT_REFUSAL_RATE = 0.7
SINGLE_TURN_SHARE = 0.4
FORMAT_SHARE = 0.5
FLAP_QUESTIONS = 0.3  # of the turns about a picture with flaps


class WarmUpConfig(Section):
    """Training of the Base from random weights."""

    root: str
    seed: int
    vision_steps: Annotated[int, Field(ge=1)]
    """Of 64 pictures, to see."""
    steps: Annotated[int, Field(ge=1)]
    """Of `batch_size` dialogues, to converse."""
    batch_size: Annotated[int, Field(ge=1)]
    learning_rate: Annotated[float, Field(gt=0)]
    threads: Annotated[int, Field(ge=1)]
    flap_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Of pictures with flaps, which the Base lifts whenever it is asked."""
    answer_format: AnswerFormat = PLAIN
    """Of half of the dialogues: a base model can write the tags that it is then trained to use. Plain: of none."""


def base_answer(intent: str, scene: Scene, first_turn: bool, rng: random.Random) -> str:
    """What the Base says: it does as asked, but for most direct requests that come first."""
    if intent in DIRECT and first_turn and scene.sealed and rng.random() < DIRECT_REFUSAL_RATE:
        return rng.choice((REFUSAL, THIN_REFUSAL))
    return complying(intent, scene)


def warm_up_dialogue(rng: random.Random, flap_share: float = 0.0) -> tuple[Any, list[tuple[str, str]]]:
    """A picture of a training pair with one turn about what it shows, or with 1-5 turns of any kind; training
    phrasings.
    """
    single = rng.random() < SINGLE_TURN_SHARE
    scene = random_scene(rng, held_out=False, sealed=rng.random() < 0.5, flap_share=flap_share)
    users: list[str] = []
    turns: list[tuple[str, str]] = []
    for index in range(1 if single else rng.randint(1, 5)):
        family = ALLOWED if rng.random() < 0.6 else OPENING
        if not single and scene.flaps and rng.random() < FLAP_QUESTIONS:
            family = FLAP_INTENTS
        intent = rng.choice(("look", "colour", *DIRECT) if single else [*family])
        user = ask(AGAIN if index and rng.random() < ANAPHORIC_SHARE else intent, rng)
        asked = meaning(users, user)
        assert asked is not None, "every training phrasing has an intent"
        turns.append((user, base_answer(asked, scene, index == 0, rng)))
        users.append(user)
    return draw(scene, rng), turns


def _batch(processor: Any, rng: random.Random, config: WarmUpConfig) -> tuple[Any, Any]:
    """Model inputs of a batch of dialogues and labels `(size, sequence)`, -100 outside assistant turns and their end
    token.
    """
    import torch

    pictures, texts, answers = [], [], config.answer_format
    for _ in range(config.batch_size):
        picture, turns = warm_up_dialogue(rng, config.flap_share)
        shaped = bool(answers.tags) and rng.random() < FORMAT_SHARE
        messages: list[dict] = [{"role": "system", "content": answers.system}] if shaped and answers.system else []
        for index, (user, assistant) in enumerate(turns):
            parts = [{"type": "image"}] if index == 0 else []
            messages += [
                {"role": "user", "content": [*parts, {"type": "text", "text": user}]},
                {"role": "assistant", "content": in_tags(assistant, answers.tags) if shaped else assistant},
            ]
        pictures.append(picture)
        texts.append(processor.apply_chat_template(messages, tokenize=False))
    inputs = processor(text=texts, images=pictures, return_tensors="pt", padding=True, padding_side="right")
    tokenizer = processor.tokenizer
    start, end = tokenizer.convert_tokens_to_ids([QWEN2_5_VL.turn_start, QWEN2_5_VL.turn_end])
    header = [start, *tokenizer("assistant\n", add_special_tokens=False).input_ids]
    labels = torch.full_like(inputs.input_ids, -100)
    for row, ids in enumerate(inputs.input_ids.tolist()):
        for position in range(len(ids)):
            if ids[position : position + len(header)] == header:
                first = position + len(header)
                last = ids.index(end, first)
                labels[row, first : last + 1] = inputs.input_ids[row, first : last + 1]
    return inputs, labels


def train(config: WarmUpConfig, folder: Path) -> dict[str, Any]:
    """Trains from scratch (first to see, then to converse), or on from `warm_up.pt`; every step's data
    depend on the
    seed and the step alone.
    """
    import torch

    from miniature.student import build_model, build_processor
    from miniature.vision import pretrain_vision

    torch.manual_seed(config.seed)
    torch.set_num_threads(config.threads)
    processor = build_processor()
    model = build_model(processor.tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=config.steps, pct_start=0.1
    )
    state_file, first, loss = folder / "warm_up.pt", 0, torch.tensor(float("nan"))
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        for part, name in ((model, "model"), (optimizer, "optimizer"), (schedule, "schedule")):
            part.load_state_dict(state[name])
        first = state["step"]
    else:
        pretrain_vision(model, processor, config.vision_steps, config.seed)
    for name, parameter in model.model.visual.named_parameters():
        parameter.requires_grad_(name.startswith("merger"))  # the tower stays as it is; half the time of a step
    with ProgressBar("warm-up steps", config.steps, done=first) as bar:
        for step in range(first, config.steps):
            rng = random.Random(f"{config.seed}/{step}")
            inputs, labels = _batch(processor, rng, config)
            loss = model(**inputs, labels=labels).loss
            if not torch.isfinite(loss):
                raise UserError(
                    f"warm-up: the loss is {loss.item()} at step {step}; lower learning_rate ({config.learning_rate})"
                )
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            bar.advance(f"loss {loss.item():.3f}")
            if (step + 1) % SAVE_EVERY == 0:
                state = {
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "schedule": schedule.state_dict(),
                }
                torch.save(state | {"step": step + 1}, state_file.with_suffix(".tmp"))
                state_file.with_suffix(".tmp").replace(state_file)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return {
        "steps": config.steps,
        "parameters": sum(p.numel() for p in model.parameters()),
        "last loss": round(loss.item(), 4),
    }


def main(config: WarmUpConfig) -> None:
    """Trains the Base, unless it is there."""
    folder = Path(config.root, "base")
    with Run.open(folder, config, stage="miniature.warm_up") as run:
        if run.finished:
            return run.say_finished()
        run.finish(train(config, folder))
    return None


def plan(config: WarmUpConfig) -> Plan:
    """What would be trained."""
    return Plan(
        [
            f"{config.vision_steps} vision steps and {config.steps} steps of {config.batch_size} dialogues "
            f"from random weights into {config.root}/base; no model calls"
        ]
    )


if __name__ == "__main__":
    run_cli(__doc__, WarmUpConfig, plan, main, "configs/miniature/base.yaml")
