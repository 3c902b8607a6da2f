"""The plan that --dry-run prints: seeds found, dialogues to make, and about how many calls each role gets at most."""

from collections import Counter

from data_construction.config import DataConfig, SourceConfig
from data_construction.sources import SOURCES
from safer_steer.cli import Plan
from safer_steer.errors import UserError


def plan(config: DataConfig) -> Plan:
    """Counts without decoding a picture or calling a model; a source that is not there yet counts with its `limit`."""
    lines, calls = [f"steps: {', '.join(config.steps)}; output: {config.folder}"], Counter()
    candidates, turns = 0.0, 0.0
    for name, source in config.sources.items():
        seeds, note = _count(source)
        strategies = {"red_team": config.red_team.strategies_per_seed}
        dialogues = {kind: seeds * strategies.get(kind, 1) for kind in config.kinds_of(source)}
        total = sum(dialogues.values())
        lines.append(f"source {name} ({source.reader}, {source.split}): {seeds:,} seeds{note}, {total:,} dialogues")
        if "stage1" in config.steps:
            calls.update(_stage_one_calls(config, seeds, dialogues))
        if source.split == "train":
            sft_share = 1 - config.assemble.rl_share
            candidates += sft_share * total
            turns += sft_share * sum(number * getattr(config.turns, kind).max for kind, number in dialogues.items())
    if "stage2" in config.steps and candidates:
        share = min(1.0, (config.bootstrap.candidates or candidates) / candidates)
        lines.append(f"stage 2: about {candidates * share:,.0f} dialogues")
        calls.update(dict.fromkeys(("red", "blue", "evaluator"), round(turns * share)))
    needed = {role: calls[role] for role in config.roles_needed()}
    return Plan(lines, needed, usd_per_million={role: _price(config, role) for role in needed})


def _stage_one_calls(config: DataConfig, seeds: int, dialogues: dict[str, int]) -> dict[str, int]:
    attacks = dialogues.get("red_team", 0)
    expanded = sum(dialogues.values()) - attacks
    generator = expanded + 2 * attacks + seeds * (bool(expanded) + bool(attacks))  # probe and forensics once a seed
    plays = attacks * config.turns.red_team.max
    return {"generator": generator, "target": plays, "evaluator": plays}


def _price(config: DataConfig, role: str) -> float | None:
    return config.roles[role].usd(750_000, 250_000)  # three quarters of a call's tokens are its prompt


def _count(source: SourceConfig) -> tuple[int, str]:
    try:
        reader = SOURCES[source.reader]
        return reader.count(source.path, source.fields, source.data_split, source.where, source.limit), ""
    except UserError:
        return source.limit or 0, f" (its limit; {source.path} is not there yet)"
