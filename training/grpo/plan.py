"""The plan that --dry-run prints: steps, models, and what the tutor has to do and will cost."""

import math
from collections import Counter
from pathlib import Path
from typing import Any

from safer_steer.dialogue import MAX_TURNS, Dialogue
from safer_steer.load import ANSWER, PICTURE, SCORES, USER_TURN, Load, prompt_tokens
from safer_steer.machine import plan_lines
from safer_steer.plan import Plan
from safer_steer.prompts import Prompt
from safer_steer.row_files import read_rows
from safer_steer_verl.interactions.safety_tutor import load_prompt
from safer_steer_verl.platform import attention
from safer_steer_verl.settings import DataConfig, SaferSteerSettings
from safer_steer_verl.utils.own_reward import Reward, sample_turn
from safer_steer_verl.utils.turn_reward import RewardConfig
from training.grpo import layout
from training.grpo.config import GrpoConfig
from training.grpo.needs import needs


def plan(config: GrpoConfig) -> Plan:
    """What the run would do; the number of tutor calls is an upper bound: dialogues may end early."""
    verl, ours = config.verl, config.safer_steer
    batch, rollouts = verl["data"]["train_batch_size"], verl["actor_rollout_ref"]["rollout"]["n"]
    steps = verl["trainer"]["total_training_steps"]
    asked = f"{steps} steps" if steps else f"{verl['trainer']['total_epochs']} epoch(s)"
    lines = [
        f"{asked} of {batch} prompts x {rollouts} rollouts, answers of at most {ours.turns.max_tokens} tokens",
        f"student starts from {verl['actor_rollout_ref']['model']['path']}; prompts {ours.data.source}, "
        + ("each dialogue's last question alone" if ours.data.turns == "last" else "all turns"),
        f"answers: {ours.answer_format.said()}",
        f"return by rule {ours.tcsr.rule}, alpha {ours.tcsr.alpha}, over {ours.tcsr.over}; feedback dynamics "
        + ("on: the tutor writes the next question" if ours.feedback_dynamics else "off: the planned one is asked"),
        f"tutor {ours.tutor.model} at {ours.tutor.base_url}; services started: {', '.join(ours.services) or 'none'}",
        *([f"tutor's prompt: {ours.tutor.prompt}"] if ours.tutor.prompt else []),
        f"device {verl['trainer']['device']}; checkpoint every {verl['trainer']['save_freq']} steps",
        attention.describe(ours.attention, verl["trainer"]["device"]),
        room(ours, verl),
        *([_reward(ours.reward)] if ours.reward.function else []),
        *layout.lines(ours, verl),
        "verl's own checks of the config: passed",
        f"output {config.output}",
        *plan_lines(needs(config)),
    ]
    load = tutor_load(ours.data, verl, load_prompt(ours.tutor.prompt, ours.policy))
    if load is None:
        lines.append(f"tutor calls: not known before {ours.data.source} is there")
        return Plan(lines)
    return Plan(lines, {"tutor": load}, {"tutor": ours.tutor})


def _reward(config: RewardConfig) -> str:
    turn = sample_turn()
    return (
        f"reward: {config.function}; a sample turn, {turn.spoken!r} with {turn.scores}, gets {Reward(config).check():g}"
    )


def room(ours: SaferSteerSettings, verl: dict[str, Any]) -> str:
    """Whether all turns of the longest dialogue fit into a trajectory, if each answer is as long as it may be."""
    lengths = _turns([Path(ours.data.source)]) or {MAX_TURNS: 1}
    turns = 1 if ours.data.turns == "last" else max(lengths)
    have, need = verl["data"]["max_response_length"], turns * (ours.turns.max_tokens + USER_TURN)
    said = f"{turns} turns of {ours.turns.max_tokens} tokens and their questions are {need} tokens, "
    if need <= have:
        return f"{said}data.max_response_length is {have}: they fit"
    return (
        f"{said}data.max_response_length is {have}: answers of more than {max(0, have // turns - USER_TURN)} tokens on "
        "average end such a dialogue early (context_full)"
    )


def tutor_load(data: DataConfig, verl: dict[str, Any], prompt: Prompt | None = None) -> Load | None:
    """Tutor calls of a whole run, one per turn of a trajectory; None where neither the data nor the steps are known.

    Without a data file its dialogues count as ten turns long, the most that the method has.
    Without a prompt it is the tutor's own.
    """
    tokens = prompt_tokens(prompt or load_prompt())
    trainer, batch = verl["trainer"], verl["data"]["train_batch_size"]
    rollout = verl["actor_rollout_ref"]["rollout"]
    turns = _turns([Path(data.source)])
    steps = trainer["total_training_steps"] or trainer["total_epochs"] * (turns.total() // batch)
    if not steps:
        return None
    load = Load()
    _add_dialogues(load, tokens, turns, steps * batch * rollout["n"], data.turns == "last")
    freq = trainer["test_freq"]
    validations = (math.ceil(steps / freq) if freq > 0 else 0) + trainer["val_before_train"]
    held_out = _turns([Path(path) for path in data.validation])
    _add_dialogues(
        load, tokens, held_out, validations * held_out.total() * rollout["val_kwargs"]["n"], data.turns == "last"
    )
    return load


def _turns(files: list[Path]) -> Counter[int]:
    """Number of turns -> number of dialogues, of the files that are there."""
    rows = (row for file in files if file.is_file() for row in read_rows(file, Dialogue))
    return Counter(len(row.turns) for row in rows if isinstance(row, Dialogue))


def _add_dialogues(load: Load, tokens: int, turns: Counter[int], dialogues: int, last_turn_only: bool) -> None:
    """Adds the tutor's calls, with a prompt of so many tokens, in so many dialogues of these lengths."""
    known = turns or Counter({MAX_TURNS: 1})
    for length, number in known.items():
        share = dialogues * number / known.total()
        load.add_turns(share, 1 if last_turn_only else length, tokens + PICTURE + ANSWER, SCORES)
