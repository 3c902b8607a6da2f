"""What a step at the paper's size will take: GPU hours, calls, cost. Modelled as in docs/scaling.md, not measured."""

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from benchmarks import scaling_model as model
from data_construction.config import DataConfig
from safer_steer.config import load_config
from safer_steer.llm.prices import load_prices
from safer_steer.load import Load

SINGLE_TURN = 590 + 1680 + 530 + 1558 + 2241  # questions of Table 2's five sets
TUTOR = "Qwen/Qwen3-VL-32B-Instruct"


@dataclass(frozen=True)
class Work:
    """What a step has to do.

    Attributes:
        stage: `data`, `sft`, `grpo` or `evaluation`.
        billions: parameters of the student, in billions; 0 where somebody else serves the model.
        last: each dialogue's last question alone.
        single_turn: the single-turn sets too.
    """

    stage: Literal["data", "sft", "grpo", "evaluation"]
    billions: float = 0.0
    last: bool = False
    single_turn: bool = False


@dataclass
class Forecast:
    """GPU hours, calls by model, and USD; `unpriced` are the models without a price."""

    gpu_hours: float = 0.0
    calls: dict[str, float] = field(default_factory=dict)
    usd: float = 0.0
    unpriced: set[str] = field(default_factory=set)

    def __str__(self) -> str:
        calls = ", ".join(f"{number:,.0f} calls of {name}" for name, number in self.calls.items())
        unknown = f", {', '.join(sorted(self.unpriced))} without a price" if self.unpriced else ""
        return f"{self.gpu_hours:,.1f} GPU hours; {calls or 'no calls'}; about ${self.usd:,.2f}{unknown}"


def total(parts: Iterable[Forecast]) -> Forecast:
    """The sum."""
    found = Forecast()
    for part in parts:
        found.gpu_hours, found.usd = found.gpu_hours + part.gpu_hours, found.usd + part.usd
        found.unpriced |= part.unpriced
        for name, number in part.calls.items():
            found.calls[name] = found.calls.get(name, 0) + number
    return found


@cache
def forecast(work: Work) -> Forecast:
    """What one step will take."""
    inputs = _inputs(work)
    sizes, answers = model.values(inputs["work"]), model.values(inputs["answers"])
    trajectories = sizes["rl_prompts"] * sizes["rollouts"]
    if work.stage == "data":
        config = load_config(DataConfig, inputs["data_config"])
        loads = model.data_loads(config, sizes["candidates"])
        names = {role: config.roles[role].model for role in loads}
        return _priced(inputs, {names[role]: load for role, load in loads.items()}, loads, "Stage I")
    if work.stage == "sft":
        return _priced(inputs, {}, {}, "SFT")
    if work.stage == "grpo":
        tutor = model.conversation_load(trajectories, sizes["rl_turns"], model.TUTOR_PROMPT, answers["tutor"])
        return _priced(inputs, {TUTOR: tutor}, {"tutor": tutor}, "GRPO")
    found = _evaluated(inputs, sizes["bench_dialogues"], sizes["bench_turns"], answers["judge"])
    if work.single_turn:
        found = total([found, _evaluated(inputs, SINGLE_TURN, 1, answers["judge"])])
    return found if work.billions else Forecast(0.0, found.calls, found.usd, found.unpriced)


def _inputs(work: Work) -> dict[str, Any]:
    """The model's inputs with this student and these lengths."""
    inputs = copy.deepcopy(model.read_inputs())
    if work.billions:
        inputs["models"]["student"]["value"] = work.billions
    if work.last:
        inputs["work"]["sft_turns"]["value"] = inputs["work"]["rl_turns"]["value"] = 1
    return inputs


def _evaluated(inputs: dict[str, Any], dialogues: float, turns: float, verdict: float) -> Forecast:
    judge = model.conversation_load(dialogues, turns, model.JUDGE_PROMPT, verdict)
    sizes = {"bench_dialogues": dialogues, "bench_turns": turns, "bench_models": 1}
    changed = inputs | {"work": inputs["work"] | {name: {"value": value} for name, value in sizes.items()}}
    return _priced(changed, {inputs["judge_model"]: judge}, {}, "Evaluation")


def _priced(inputs: dict[str, Any], by_model: dict[str, Load], loads: dict[str, Load], stage: str) -> Forecast:
    """GPU hours of the stage's rows in the model, calls and cost by model."""
    hours = model.gpu_hours(inputs, {model.OWN_HARDWARE: Load(), "tutor": Load()} | loads)
    prices, found = load_prices(inputs["prices"]).models, Forecast()
    found.gpu_hours = sum(number for name, number in hours.items() if name.startswith(stage))
    for name, load in by_model.items():
        found.calls[name] = found.calls.get(name, 0) + load.calls
        if name not in prices:
            found.unpriced.add(name)
            continue
        found.usd += (load.tokens_in * prices[name].input + load.tokens_out * prices[name].output) / 1e6
    return found
