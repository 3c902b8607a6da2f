"""Calibrates a judge or tutor on the gold set before money is spent: agreement, kappa, confusion, cost, a verdict.

    python -m evaluation.calibrate CONFIG [key=value ...] [--json]  asks the model; exit code 1 below the threshold
    python -m evaluation.calibrate CONFIG --dry-run        says how many cases, calls and tokens, and the cost
    python -m evaluation.calibrate CONFIG --write DIR      writes prompts, pictures and schema for another reader
    python -m evaluation.calibrate CONFIG --answers FILE [--json]  scores that reader's JSONL of {"id", "answer"}

Input: the gold set of `gold.py`. Output: `verdicts.jsonl`, `unscored.jsonl`, `calibration.md` in `output`, of another
reader `calibration.answers.md`; resumes.
"""

import argparse
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from evaluation.calibrate.ask import SCHEMAS, messages_of, prompt_of, scores_of, text_of, write_cases
from evaluation.calibrate.config import CalibrationConfig
from evaluation.calibrate.gold import GoldCase, gold_cases
from evaluation.calibrate.table import compare
from safer_steer.cli import DRY_RUN, JSON, config_parser, exit_code, in_json, parse, print_dry_run
from safer_steer.config import help_text, load_config
from safer_steer.engine import Work
from safer_steer.errors import UserError
from safer_steer.llm import LLMClient
from safer_steer.load import CHARACTERS_A_TOKEN, PICTURE, SCORES, Load
from safer_steer.machine import Needs
from safer_steer.plan import Plan
from safer_steer.prompts import Prompt
from safer_steer.rows import Reject
from safer_steer.runs import not_counted
from safer_steer.stage import Stage, run
from safer_steer.store import read_jsonl, write_atomic

VERDICTS, UNSCORED, REPORT, RECORD = "verdicts.jsonl", "unscored.jsonl", "calibration.md", "run.json"
ANOTHER, ANOTHERS_REPORT = "another reader", "calibration.answers.md"
DEFAULT_CONFIG = "configs/calibration/judge.yaml"


class GoldVerdict(BaseModel):
    """The scores that a model gave to a case."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    id: str
    scores: dict[str, int]
    meta: dict[str, Any] = {}


def calibration(config: CalibrationConfig, cases: list[GoldCase]) -> Stage:
    """Asks the model for every case."""
    prompt, folder = prompt_of(config), Path(config.output)
    endpoint = config.endpoint.from_environment(config.role)
    return Stage(
        name=f"calibrate {config.role}",
        folder=folder,
        record=RECORD,
        config={"role": config.role, "cases": [case.case_id for case in cases]},
        roles={config.role: endpoint},
        services=config.services,
        prompts={config.role: prompt.hash},
        tasks=lambda: cases,
        work=partial(_work, config.role, prompt),
        kept=VERDICTS,
        rejects=UNSCORED,
        ordered=True,
        concurrency=endpoint.concurrency,
        max_transport_rate=config.max_transport_rate,
        needs=Needs("cpu", folder),
    )


def _work(role: str, prompt: Prompt, clients: Mapping[str, LLMClient]) -> Work:
    async def work(case: GoldCase) -> GoldVerdict | Reject:
        answer = await clients[role].structured(messages_of(case, role, prompt), SCHEMAS[role], name=role)
        if answer.value is None:
            return Reject(f"unscored ({answer.outcome})", answer.detail, str(answer.outcome), {"id": case.case_id})
        return GoldVerdict(id=case.case_id, scores=scores_of(answer.value), meta={"task": case.task_id})

    return work


def plan(config: CalibrationConfig, cases: list[GoldCase]) -> Plan:
    """What a run would ask for, one call a case."""
    prompt, load = prompt_of(config), Load()
    for case in cases:
        load.add(1, len(text_of(case, config.role, prompt)) / CHARACTERS_A_TOKEN + PICTURE, SCORES)
    endpoint = config.endpoint.from_environment(config.role)
    lines = [f"{len(cases)} cases -> {config.output}/{{{VERDICTS},{UNSCORED},{REPORT}}}, by {endpoint.model}"]
    return Plan(lines, {config.role: load}, {config.role: endpoint})


def _cost(config: CalibrationConfig) -> str:
    """What the run's record says of its calls, in words."""
    record = json.loads((Path(config.output) / RECORD).read_text(encoding="utf-8"))
    usage = record["usage"].get(config.role, {})
    tokens = f"{usage.get('tokens_in', 0):,} tokens in, {usage.get('tokens_out', 0):,} out"
    return "; ".join(filter(None, [f"{tokens}, USD {usage.get('usd', 'unknown')}", not_counted(record)]))


Scores = Mapping[str, Mapping[str, int]]


def verdict(
    config: CalibrationConfig, cases: list[GoldCase], given: Scores, reader: str, cost: str
) -> tuple[int, dict[str, Any]]:
    """Prints and writes the report on a model, or on `ANOTHER` reader; returns the exit code and what --json prints."""
    found = compare(cases, given, config.role, config.printed)
    passed = found.passes(config.threshold)
    shares = ", ".join(f"{scale} {share:.1%}" for scale, share in found.exact.items())
    said = f"{'fit' if passed else 'not fit'} for use: {shares}; wanted {config.threshold:.0%} on each scale"
    text = f"# Calibration of {config.role}, {reader}\n\n{found.text}\n\ncost: {cost}\n\n**{said}**\n"
    write_atomic(Path(config.output) / (ANOTHERS_REPORT if reader == ANOTHER else REPORT), text)
    print(text, flush=True)
    unscored = sum(case.case_id not in given for case in cases)
    numbers = {"fit": passed, "exact": found.exact, "threshold": config.threshold, "cases": len(cases)}
    model = {"role": config.role, "model": reader}
    return int(not passed), model | numbers | {"unscored": unscored, "cost": cost}


def read_answers(path: Path, config: CalibrationConfig, cases: list[GoldCase]) -> dict[str, dict[str, int]]:
    """Case id -> scores of another reader's answers.

    Raises:
        UserError: an answer does not fit the schema, or is for no case.
    """
    if not path.is_file():
        raise UserError(f"--answers: file not found: {path}; a JSONL of {{'id', 'answer'}} is wanted")
    known, found = {case.case_id for case in cases}, {}
    for row in read_jsonl(path):
        if row.get("id") not in known:
            raise UserError(
                f"{path}: no case {row.get('id')!r}; ids are those of cases.jsonl, written with the same config"
            )
        try:
            found[row["id"]] = scores_of(SCHEMAS[config.role].model_validate(row.get("answer")))
        except ValidationError as error:
            raise UserError(f"{path}: case {row['id']}: {error.errors()[0]['msg']}; see schema.json") from error
    return found


def _act(given: argparse.Namespace) -> int:
    config = load_config(CalibrationConfig, given.config, given.overrides)
    cases = gold_cases(config.printed)[: config.limit]
    if given.dry_run:
        print_dry_run([given.config, *given.overrides], config, plan(config, cases))
        return 0
    if given.write:
        write_cases(cases, config, Path(given.write))
        print(f"{len(cases)} cases in {given.write}: answer cases.jsonl as schema.json says, score with --answers FILE")
        return 0
    if given.json:
        return in_json(lambda: _scored(config, cases, given.answers)) or 0
    return _scored(config, cases, given.answers)[0]


def _scored(config: CalibrationConfig, cases: list[GoldCase], answers: str | None) -> tuple[int, dict[str, Any]]:
    if answers:
        return verdict(config, cases, read_answers(Path(answers), config, cases), ANOTHER, "not known")
    run([calibration(config, cases)], lambda: plan(config, cases))
    given = {row.id: row.scores for row in read_jsonl(Path(config.output) / VERDICTS, GoldVerdict)}
    return verdict(config, cases, given, config.endpoint.from_environment(config.role).model, _cost(config))


def main(argv: list[str] | None = None) -> int:
    """Parses the command line; returns the exit code."""
    keys = ["keys of the config, with their defaults:", *help_text(CalibrationConfig)]
    parser = config_parser(__doc__, keys, DEFAULT_CONFIG)
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument("--dry-run", action="store_true", help=DRY_RUN)
    ways.add_argument("--write", metavar="DIR", help="write the cases for another reader; calls nobody")
    ways.add_argument("--answers", metavar="FILE", help="score another reader's answers; calls nobody")
    parser.add_argument("--json", action="store_true", help=JSON)
    given = parse(parser, argv)
    if given.json and (given.dry_run or given.write):
        parser.error("argument --json: not allowed with --dry-run or --write, which score nothing; leave it out")
    return exit_code(lambda: _act(given))


if __name__ == "__main__":
    raise SystemExit(main())
