"""What the real run will take: the rehearsal's seconds, scaled, next to the model of docs/scaling.md."""

import math
from pathlib import Path

from benchmarks import scaling_model
from rehearsal.derive import grpo_batch, sft_batch
from rehearsal.plays import Play
from rehearsal.rows import Row, read
from rehearsal.settings import Settings
from rehearsal.subjects import Subject
from safer_steer.machine import gb
from safer_steer.model_shape import parameters
from training.grpo.plan import tutor_load


def forecast(subject: Subject, play: Play, settings: Settings, rates: dict[str, float], used: list[Row]) -> list[str]:
    """Lines for one stage.

    Args:
        subject: the stage.
        play: its rehearsal.
        settings: the rehearsal's, with the price of a GPU hour.
        rates: calls per minute of each role that answered.
        used: the rows of the rehearsal.
    """
    if not play.seconds:
        return [f"{subject.kind}: no step was seen, so nothing is predicted"]
    makers = {"sft": _sft, "grpo": _grpo, "evaluation": _evaluation}
    lines = makers[subject.kind](subject, play, settings, rates, used)
    gpu = f", {gb(play.gpu_peak)} on the fullest GPU" if play.gpu_peak else ""
    disk = f"; disk {gb(subject.needs.disk)}" if subject.needs.disk else ""
    lines.append(f"{subject.kind}: peak memory {gb(play.peak)}{gpu}{disk}")
    return lines


def _step(play: Play) -> float:
    """Seconds of a step; the first one has warm-up in it, so the later ones count."""
    later = play.seconds[1:] or play.seconds
    return sum(later) / len(later)


def _total(subject: Subject, settings: Settings, steps: int, step: float, start: float, note: str) -> list[str]:
    hours = (steps * step + start) / 3600
    gpus = subject.needs.gpus * subject.needs.nodes
    cost = (
        f", {hours * gpus:,.1f} GPU hours, ${hours * gpus * settings.gpu_hour_usd:,.0f}"
        if gpus and not subject.replaced
        else ""
    )
    shrunk = " (of the rehearsal's shrunk sizes on this CPU, not of the real run)" if subject.replaced else ""
    return [
        f"{subject.kind}: {steps:,} steps of {step:,.1f} s and {start:,.0f} s of start and end: {hours:,.2f} hours"
        f"{cost}{note}{shrunk}"
    ]


def _sft(subject: Subject, play: Play, settings: Settings, rates: dict[str, float], used: list[Row]) -> list[str]:
    training = subject.config.training
    weights = [row.weight for row in read(subject.data)]
    rows = len(weights) or round(_work("sft_dialogues"))
    batch = sft_batch(subject)[0]
    steps = training.epochs * math.ceil(rows / training.batch_size)
    step, note = _step(play) * training.batch_size / batch, " if all rows were as long as the longest"
    if weights:
        share = (sum(weights) / len(weights)) / (sum(row.weight for row in used) / len(used))
        step, note = step * min(1.0, share), " at the rows' mean length"
    where = "rows of the data" if weights else "rows, as in Table 1: the data is not there yet"
    lines = [f"sft: {rows:,} {where}"]
    return lines + _total(subject, settings, steps, step, play.start_s, note) + _modelled(subject, settings, "SFT")


def _grpo(subject: Subject, play: Play, settings: Settings, rates: dict[str, float], used: list[Row]) -> list[str]:
    verl = subject.config.verl
    prompts, rollouts = grpo_batch(subject)
    batch, group = verl["data"]["train_batch_size"], verl["actor_rollout_ref"]["rollout"]["n"]
    rows = sum(1 for _ in read(subject.data)) or round(_work("rl_prompts"))
    steps = verl["trainer"]["total_training_steps"] or verl["trainer"]["total_epochs"] * (rows // batch)
    step = _step(play) * batch * group / (prompts * rollouts)
    lines = _total(subject, settings, steps, step, play.start_s, "")
    load = tutor_load(subject.config.safer_steer.data, verl)
    if load and steps and "tutor" in rates:
        minutes = load.calls / steps / rates["tutor"]
        lines.append(
            f"grpo: at most {load.calls / steps:,.0f} calls of the tutor per step; at {rates['tutor']:,.0f} a minute, "
            f"measured with few calls at once: {minutes:,.1f} minutes per step"
        )
    return lines + _modelled(subject, settings, "GRPO")


def _evaluation(
    subject: Subject, play: Play, settings: Settings, rates: dict[str, float], used: list[Row]
) -> list[str]:
    rows = sum(1 for _ in read(subject.data)) or round(_work("bench_dialogues"))
    models = len(subject.config.models)
    alone = f"one alone took {play.seconds[0]:,.0f} s with the server's start, and many are played at once"
    return [
        f"evaluation: {rows:,} dialogues x {models} model(s); {alone}",
        *_modelled(subject, settings, "Evaluation"),
    ]


def _modelled(subject: Subject, settings: Settings, stage: str) -> list[str]:
    """Hours of the paper's run by the arithmetic of docs/scaling.md, with this student and these GPUs."""
    gpus = subject.needs.gpus * subject.needs.nodes
    number = parameters(*subject.names)
    if not gpus or not number or not Path(scaling_model.INPUTS).is_file():
        return []
    inputs = scaling_model.read_inputs()
    inputs["models"]["student"]["value"] = number / 1e9
    work, answers = (scaling_model.values(inputs[name]) for name in ("work", "answers"))
    trajectories = work["rl_prompts"] * work["rollouts"]
    load = scaling_model.conversation_load(trajectories, work["rl_turns"], scaling_model.TUTOR_PROMPT, answers["tutor"])
    hours = scaling_model.gpu_hours(inputs, {"target": scaling_model.Load(), "tutor": load})
    own = {name: value for name, value in hours.items() if name.startswith(stage) and "Tutor" not in name}
    together = sum(own.values())
    return [
        f"{subject.kind}: by the model of docs/scaling.md the paper's run takes {together:,.1f} GPU hours, "
        f"{together / gpus:,.2f} hours on {gpus} GPUs"
    ]


def _work(name: str) -> float:
    return scaling_model.values(scaling_model.read_inputs()["work"])[name]
