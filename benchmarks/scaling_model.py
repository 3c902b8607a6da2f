"""What the paper's full run needs: GPU hours, tutor replicas, rate limits, cost. Modelled from inputs, not measured.

`benchmarks/scaling.yaml` (every input with its source) and the estimates of data construction's `--dry-run` -> the
tables of `docs/scaling.md`, between its two markers.

    python -m benchmarks.scaling_model            # prints them
    python -m benchmarks.scaling_model --write    # puts them into docs/scaling.md
"""

import argparse
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from data_construction import cost
from data_construction.config import DataConfig
from evaluation.multi_turn.judge import judge_prompt
from safer_steer.config import load_config
from safer_steer.llm.prices import load_prices
from safer_steer.load import ANSWER, PICTURE, USER_TURN, Load, prompt_tokens
from safer_steer.markdown import table
from safer_steer.prompts import Prompt
from safer_steer.store import write_atomic
from safer_steer_verl.interactions.safety_tutor import load_prompt

ROOT = Path(__file__).resolve().parent.parent
INPUTS, PAGE = ROOT / "benchmarks" / "scaling.yaml", ROOT / "docs" / "scaling.md"
BEGIN, END = "<!-- generated: python -m benchmarks.scaling_model --write -->", "<!-- end of the generated part -->"
TUTOR_PROMPT, JUDGE_PROMPT = load_prompt(), judge_prompt()
OWN_HARDWARE = "target"  # the role of Stages I and II that the default config serves on own GPUs


class Serving(NamedTuple):
    """Tokens a second of one server: of prompts read, and of answers written."""

    prefill: float
    decode: float

    def hours(self, tokens_in: float, tokens_out: float, cached: float) -> float:
        """Hours for so many tokens, the cached share of the prompts left out."""
        return (tokens_in * (1 - cached) / self.prefill + tokens_out / self.decode) / 3600


def read_inputs(path: Path = INPUTS) -> dict[str, Any]:
    """The inputs, each still with its unit and source."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def values(section: dict[str, Any]) -> dict[str, float]:
    """Name -> value of a section."""
    return {name: item["value"] for name, item in section.items()}


def serving(billions: float, gpus: float, hardware: dict[str, float]) -> Serving:
    """A server's speed: prompts are bound by arithmetic (2 FLOP a parameter), answers by reading weights (2 bytes)."""
    prefill = gpus * hardware["peak_tflops"] * 1e12 * hardware["prefill_use"] / (2 * billions * 1e9)
    steps = gpus * hardware["bandwidth_gb_s"] * hardware["decode_use"] / (2 * billions)
    return Serving(prefill, steps * hardware["sequences"])


def data_loads(config: DataConfig, candidates: float) -> dict[str, Load]:
    """Calls and tokens of Stage I and `score`, at the paper's candidates, of Stage II and `history` as configured."""
    stage_one: dict[str, Load] = {}
    made, train = 0.0, Counter[str]()
    for source in config.sources.values():
        strategies = {"red_team": config.red_team.tries_per_seed}
        tasks = {kind: source.limit * strategies.get(kind, 1) for kind in config.kinds_of(source)}
        stage_one = cost.total(stage_one, cost.stage_one_loads(config, source.limit, tasks))
        made += cost.candidates(tasks)
        if source.split == "train":
            train.update({kind: cost.candidates({kind: number}) for kind, number in tasks.items()})
    mix, wanted = config.assemble.sft.mix, config.bootstrap.candidates
    bootstrapped = {kind: wanted * share / sum(mix.values()) for kind, share in mix.items()}
    return cost.total(
        {role: load.scaled(candidates / made) for role, load in stage_one.items()},
        {role: load.scaled(candidates / made) for role, load in cost.score_loads(config, train).items()},
        cost.stage_two_loads(config, bootstrapped),
        cost.history_loads(config, config.assemble.rl.history_dependent.candidates),
    )


def conversation_load(dialogues: float, turns: float, prompt: Prompt, out: float) -> Load:
    """One call a turn that reads everything so far, as tutor and judge do."""
    fixed = prompt_tokens(prompt) + PICTURE
    mean_history = (turns + 1) / 2 * (USER_TURN + ANSWER)
    load = Load()
    load.add(dialogues * turns, fixed + mean_history, out)
    return load


def dialogue_tokens(turns: float) -> float:
    """Tokens of a whole dialogue with its picture."""
    return PICTURE + turns * (USER_TURN + ANSWER)


def training_hours(tokens: float, flops_a_parameter: float, inputs: dict[str, Any]) -> float:
    """GPU hours of passes over so many tokens."""
    hardware = values(inputs["hardware"])
    flops = tokens * flops_a_parameter * inputs["models"]["student"]["value"] * 1e9
    return flops / (hardware["peak_tflops"] * 1e12 * hardware["training_use"]) / 3600


def gpu_hours(inputs: dict[str, Any], loads: dict[str, Load]) -> dict[str, float]:
    """Stage -> GPU hours. 8 FLOP a parameter and token in training (6, and 2 to recompute), 2 in a forward pass."""
    work, hardware, models = (values(inputs[name]) for name in ("work", "hardware", "models"))
    student, cached = serving(models["student"], 1, hardware), hardware["cached"]
    target, tutor = loads[OWN_HARDWARE], loads["tutor"]
    trajectories = work["rl_prompts"] * work["rollouts"]
    rl_tokens = trajectories * dialogue_tokens(work["rl_turns"])
    plays = work["bench_dialogues"] * work["bench_models"] * work["bench_turns"]
    played_in = plays * (PICTURE + (work["bench_turns"] + 1) / 2 * (USER_TURN + ANSWER))
    sft_tokens = work["sft_dialogues"] * work["sft_epochs"] * dialogue_tokens(work["sft_turns"])
    rollout_in = trajectories * work["rl_turns"] * (dialogue_tokens(work["rl_turns"]) + PICTURE) / 2
    replica = serving(models["tutor"], models["tutor_gpus"], hardware)
    return {
        "Stage I and scores of candidates: target": student.hours(target.tokens_in, target.tokens_out, cached),
        "SFT": training_hours(sft_tokens, 8, inputs),
        "GRPO: rollouts": student.hours(rollout_in, trajectories * work["rl_turns"] * ANSWER, cached),
        "GRPO: log-probs (two passes) and update": training_hours(rl_tokens, 8 + 2 * 2, inputs),
        "GRPO: Safety Tutor": models["tutor_gpus"] * replica.hours(tutor.tokens_in, tutor.tokens_out, cached),
        "Evaluation: models under test": student.hours(played_in, plays * ANSWER, cached),
    }


def tables(inputs: dict[str, Any]) -> str:
    """The generated part of the page."""
    config = load_config(DataConfig, str(ROOT / inputs["data_config"]), [f"prices={ROOT / inputs['prices']}"])
    work, hardware, models, answers = (values(inputs[name]) for name in ("work", "hardware", "models", "answers"))
    trajectories = work["rl_prompts"] * work["rollouts"]
    played = work["bench_dialogues"] * work["bench_models"]
    loads = data_loads(config, work["candidates"]) | {
        "tutor": conversation_load(trajectories, work["rl_turns"], TUTOR_PROMPT, answers["tutor"]),
        "judge": conversation_load(played, work["bench_turns"], JUDGE_PROMPT, answers["judge"]),
    }
    names = {role: endpoint.model for role, endpoint in config.roles.items()}
    names |= {"tutor": "Qwen/Qwen3-VL-32B-Instruct", "judge": inputs["judge_model"]}
    hours = gpu_hours(inputs, loads)
    parts = [
        ("Calls and cost of the models", _cost_table(loads, names, load_prices(inputs["prices"]))),
        ("Rates needed to end within a time", _rate_table(loads, inputs["hours"], names)),
        ("GPU hours", _gpu_table(hours, hardware["gpu_hour_usd"], inputs["nodes"], int(hardware["gpus_per_node"]))),
        ("Tutor replicas for GRPO", _tutor_table(inputs, loads["tutor"], hours, models, hardware, work)),
        ("Inputs", _input_table(inputs)),
    ]
    return "\n\n".join("\n".join([f"## {title}", "", *lines]) for title, lines in parts)


def _cost_table(loads: dict[str, Load], names: dict[str, str], prices: Any) -> list[str]:
    rows, sum_usd = [], 0.0
    for role, load in loads.items():
        price = prices.models[names[role]]
        usd = (load.tokens_in * price.input + load.tokens_out * price.output) / 1e6
        sum_usd += usd
        tokens = [f"{load.tokens_in / 1e6:,.0f}", f"{load.tokens_out / 1e6:,.0f}"]
        rows.append([f"{role} ({names[role]})", f"{load.calls:,.0f}", *tokens, f"{usd:,.0f}"])
    rows.append(["together", f"{sum(load.calls for load in loads.values()):,.0f}", "", "", f"{sum_usd:,.0f}"])
    return table(["role", "calls", "million tokens in", "million tokens out", "USD"], rows).splitlines()


def _rate_table(loads: dict[str, Load], hours: list[int], names: dict[str, str]) -> list[str]:
    head = ["role", *[f"{unit} a minute, {h} h" for h in hours for unit in ("calls", "thousand tokens")]]
    rows = []
    for role, load in loads.items():
        rates = [(load.calls / h / 60, (load.tokens_in + load.tokens_out) / h / 60e3) for h in hours]
        rows.append([role, *[f"{number:,.0f}" for pair in rates for number in pair]])
    return table(head, rows).splitlines()


def _gpu_table(hours: dict[str, float], usd: float, nodes: list[int], gpus: int) -> list[str]:
    head = ["stage", "GPU hours", "USD", *[f"hours on {n} x {gpus} GPUs" for n in nodes]]
    stages = [*hours.items(), ("together", sum(hours.values()))]
    rows = [
        [name, f"{number:,.0f}", f"{number * usd:,.0f}", *[f"{number / (n * gpus):,.1f}" for n in nodes]]
        for name, number in stages
    ]
    return table(head, rows).splitlines()


def _tutor_table(
    inputs: dict[str, Any], load: Load, hours: dict[str, float], models: Any, hardware: Any, work: Any
) -> list[str]:
    steps = int(work["rl_prompts"] // work["rl_batch"])
    replica = serving(models["tutor"], models["tutor_gpus"], hardware)
    total = replica.hours(load.tokens_in, load.tokens_out, hardware["cached"])
    rollout = hours["GRPO: rollouts"] / hardware["gpus_per_node"]
    rows = []
    for number in inputs["tutor_replicas"]:
        share = total / number
        bound = "tutor" if share > rollout else "student"
        gpus = f"{number * models['tutor_gpus']:.0f}"
        rows.append([f"{number}", gpus, f"{share / steps * 60:.1f}", f"{share:.1f}", bound])
    head = ["replicas", "GPUs for them", "minutes a step", f"hours of {steps} steps", "rollouts wait for"]
    lines = table(head, rows).splitlines()
    note = f"The student's own rollouts on {hardware['gpus_per_node']} GPUs: {rollout / steps * 60:.1f} minutes a step."
    return [*lines, "", note]


def _input_table(inputs: dict[str, Any]) -> list[str]:
    sections = {name: part for name, part in inputs.items() if isinstance(part, dict)}
    assumed = "assumption of data_construction/cost.py"
    rows = [
        ["tokens: picture", f"{PICTURE:,}", "tokens", assumed],
        ["tokens: user turn", f"{USER_TURN}", "tokens", assumed],
        ["tokens: answer", f"{ANSWER}", "tokens", assumed],
    ]
    rows += [
        [f"{section}: {name}", f"{item['value']:,}", item["unit"], item["source"]]
        for section, items in sections.items()
        for name, item in items.items()
    ]
    return table(["input", "value", "unit", "source"], rows).splitlines()


def page_with(text: str, generated: str) -> str:
    """The page's text with the generated part put between its markers."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{generated}\n\n{END}{after}"


def main() -> None:
    """Prints the tables, or writes them into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put them into docs/scaling.md")
    arguments = parser.parse_args()
    generated = tables(read_inputs())
    if not arguments.write:
        print(generated)
        return
    write_atomic(PAGE, page_with(PAGE.read_text(encoding="utf-8"), generated))


if __name__ == "__main__":
    main()
