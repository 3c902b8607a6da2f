"""Evaluation: every model plays the benchmarks, the judge scores every answer, the report shows the numbers and the
dialogues.

Input: checkpoints or endpoints, benchmark files. Output: <output>/<model>/{answers,verdicts}.jsonl,
<output>/summary.json, and the report folder (index.html, transcripts.html, tables.md, tables/, survival.png).

    python -m evaluation.run [CONFIG] [key=value ...] [--dry-run | --json]
"""

if __name__ == "__main__":  # before the imports below, which take seconds
    from safer_steer import interrupts

    interrupts.watch()

import json
from collections import Counter
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from evaluation.benchmarks import benchmark_files, read_benchmarks
from evaluation.config import ADAPTIVE, EvaluationConfig, judge_role, model_under_test, role_of, set_variables
from evaluation.multi_turn.aggregate import headline_average
from evaluation.multi_turn.inference import inference, picture_size
from evaluation.multi_turn.judge import judge_prompt, judging
from evaluation.needs import needs
from evaluation.pictures import missing_pictures
from evaluation.report.build import FILES, SUMMARY, Report
from safer_steer.cli import run_cli
from safer_steer.folder_lock import hold
from safer_steer.load import ANSWER, PICTURE, SCORES, USER_TURN, Load, prompt_tokens
from safer_steer.machine import plan_lines
from safer_steer.plan import Plan
from safer_steer.row_files import BadRow, first_few
from safer_steer.stage import run
from safer_steer.weights import is_hub_id

DEFAULT_CONFIG = "configs/evaluation/steer_bench.yaml"
HEADLINE = (  # of a model in `summary.json`
    *("title", "safe", "safe_ci", "help", "help_ci", "joint", "joint_ci", "over_refusal", "scored", "unscored"),
    *("n_dialogues", "samples", "repeats", "left_out", "not_played", "median_failure_turn"),
)


def plan(config: EvaluationConfig) -> Plan:
    """What a run would do; reads the benchmark files where they exist."""
    files = benchmark_files(config.benchmarks)
    names = ", ".join(files) or f"none yet: nothing matches {', '.join(config.benchmarks)}"
    bad: list[BadRow] = []
    choice = {"ids": config.ids, "repeats": config.repeats}
    dialogues = read_benchmarks(config.benchmarks, config.limit, bad, **choice) if files else []
    lengths = Counter(len(item.dialogue.turns) for item in dialogues)
    left = {"bad rows": [row.detail for row in bad], "without their pictures": missing_pictures(dialogues)}
    rejected = "".join(f", {len(found)} {what}" for what, found in left.items() if found)
    if empty := files.keys() - {item.benchmark for item in dialogues}:
        rejected += f", nothing of {', '.join(sorted(empty))}"
    turns = sum(length * number for length, number in lengths.items())
    models = {name: model_under_test(config, name) for name in config.models}
    sources = [f"{name} ({model.checkpoint or model.endpoint.base_url})" for name, model in models.items()]
    judges = {name: judge.from_environment(judge_role(name)) for name, judge in config.all_judges().items()}
    several = f", {config.repeats} samples of each, together" if config.repeats > 1 else ","
    lines = [
        f"benchmarks: {names}; {len(dialogues) // config.repeats} dialogues{several} {turns} turns{rejected}",
        *(f"  {problem}" for found in left.values() for problem in first_few(found)),
        f"models, one after another: {', '.join(sources)}",
        *(f"1 infer  -> {part.output}/<model>/answers.jsonl, {part.mode} user turns" for part in config.parts()),
        *(f"  {name}: {said}" for name, said in _models(config).items()),
        f"2 judge  -> verdicts.jsonl next to them, by {', '.join(j.model for j in judges.values())}",
        f"3 report -> {config.report.folder}/{{{','.join(FILES)}}}, {config.output}/summary.json",
    ]
    roles = [*(role_of("evaluated", name) for name in models), *map(judge_role, judges)]
    roles += ["tutor"] if config.attacker else []
    if replaced := [name for role in roles for name in set_variables(role)]:
        lines.append(f"of the environment, in place of the config's values: {', '.join(replaced)}")
    lines += plan_lines(needs(config))
    tested = {role_of("evaluated", name): model.endpoint for name, model in models.items() if model.endpoint}
    tutor = {"tutor": config.attacker.from_environment("tutor")} if config.attacker else {}
    endpoints = {judge_role(name): judge for name, judge in judges.items()}
    return Plan(lines, _loads(config, lengths, list(endpoints), list(tested)), tested | endpoints | tutor)


def _models(config: EvaluationConfig) -> dict[str, str]:
    """How each model is asked, in words; checks the checkpoints that are here already."""
    found: dict[str, str] = {}
    least = f"at least {config.min_pixels:,} and " if config.min_pixels else ""
    for name, model in config.models.items():
        sampling, answers = config.sampling_of(name), config.format_of(name).said()
        if model.checkpoint and Path(model.checkpoint).is_dir():
            picture_size(config, name)
        elif model.checkpoint and not model.answer_format and not is_hub_id(model.checkpoint):
            answers = f"not there yet (its own answer format counts; if it has none: {answers})"
        found[name] = (
            f"pictures of {least}at most {config.max_pixels_of(name):,} px, {answers}, "
            f"temperature {sampling.temperature:g}, at most {sampling.max_tokens} tokens"
        )
    return found


def _loads(config: EvaluationConfig, lengths: Counter[int], judges: list[str], tested: list[str]) -> dict[str, Load]:
    """Calls and tokens of the models under test, the tutor and each judge; `lengths`: turns -> number of dialogues.

    Each model at an endpoint is a role of its own; those that the run serves itself are together.
    """
    models, plays = len(config.models), len(config.parts())
    one, tutor, judge = Load(), Load(), Load()
    judging_tokens = prompt_tokens(judge_prompt(config.judge_prompt, config.policy)) + PICTURE + ANSWER
    for length, number in lengths.items():
        one.add_turns(number * plays, length, PICTURE, ANSWER)
        judge.add_turns(number * models * plays, length, judging_tokens, SCORES)
        # It sees a turn's answer and writes the next turn.
        tutor.add_turns(number * models, length - 1, PICTURE + ANSWER, SCORES + USER_TURN)
    adaptive = {"tutor": tutor} if config.attacker else {}
    served = models - len(tested)
    own = {"models that this run serves": one.scaled(served)} if served else {}
    return own | dict.fromkeys(tested, one) | adaptive | dict.fromkeys(judges, judge)


def main(config: EvaluationConfig) -> None:
    """Runs what is not done yet of infer, judge and report, as the only process in the output folder."""
    _models(config)  # before the first model starts, not before the last
    with hold(Path(config.output)):
        models = [(part, name) for name in config.models for part in config.parts()]
        following = [*(partial(inference, *model) for model in models[1:]), None]
        played = (inference(*model, ahead) for model, ahead in zip(models, following, strict=True))
        judged = (judging(part, name, judge) for judge in config.all_judges() for part, name in models)
        run(chain(played, judged), lambda: plan(config))
        report = Report(config)
        note = "" if report.build() else "already finished, nothing to do; "
    print(f"report: {note}{', '.join(str(Path(config.report.folder, file)) for file in FILES)}", flush=True)


def closing(config: EvaluationConfig) -> dict[str, Any]:
    """What the closing table says: the headline numbers of each model, by their names in `summary.json`; where the
    tutor attacked, who wrote the user turns and, with mode `both`, `adaptive_minus_static`, the paired differences.
    """
    path = Path(config.output, SUMMARY)
    found = json.loads(path.read_text(encoding="utf-8"))
    models: dict[str, dict[str, Any]] = {}
    for name, numbers in found["models"].items():
        models[name] = {key: numbers[key] for key in HEADLINE} | {"average": headline_average(numbers)}
        models[name] |= {key: numbers[key] for key in ("user_turns",) if key in numbers}
        if name.startswith(f"{ADAPTIVE}/"):
            titles = (models[name.removeprefix(f"{ADAPTIVE}/")]["title"], numbers["title"])
            pair = next(pair for pair in found["pairs"] if (pair["a"], pair["b"]) == titles)
            models[name]["adaptive_minus_static"] = pair["rates"]
    return {"summary": str(path), "report": str(Path(config.report.folder, FILES[0])), "models": models}


if __name__ == "__main__":
    run_cli(__doc__, EvaluationConfig, plan, main, DEFAULT_CONFIG, closing=closing)
