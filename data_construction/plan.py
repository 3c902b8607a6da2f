"""The plan that --dry-run prints: seeds found, dialogues to make, and what each role has to do and will cost."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from data_construction.config import DataConfig, SourceConfig
from data_construction.cost import (
    candidates,
    history_loads,
    mean_turns,
    score_loads,
    stage_one_loads,
    stage_two_loads,
    total,
)
from data_construction.own_dialogues import own_tasks
from data_construction.sources import SOURCES
from data_construction.stats.tables import PAPER, cost_table
from safer_steer.dialogue import RISK_KINDS, Kind
from safer_steer.errors import UserError
from safer_steer.llm.prices import load_prices
from safer_steer.load import Load
from safer_steer.machine import Needs, plan_lines
from safer_steer.plan import Plan
from safer_steer.row_choice import places, some_bad
from safer_steer.row_files import BadRow


def plan(config: DataConfig) -> Plan:
    """Counts without decoding a picture or calling a model; a source that is not there yet counts with its `limit`."""
    lines = [f"steps: {', '.join(config.steps)}; output: {config.folder}"]
    own = _own(config) if config.dialogues else None
    parts: list[dict[str, Load]] = []
    if own:
        lines.append(own.said)
        pool: dict[Kind, float] = own.kinds
    else:
        said, tasks, stage_one = _sources(config)
        lines += said
        models = [config.roles[role].model for role in ("target", "generator") if role in config.roles]
        if len(models) == 2 and models[0] == models[1]:
            lines.append("note: the target is the generator's model; attacks are then tried on their own author")
        pool = {kind: candidates({kind: number}) for kind, number in tasks["train"].items()}
        made = {split: candidates(kinds) for split, kinds in tasks.items()}
    lines += plan_lines(Needs("cpu", config.folder))
    if "stage1" in config.steps and not own:
        lines.append(
            f"stage 1: about {made['train']:,.0f} train and {made['bench']:,.0f} bench candidates, if half of the "
            "attacks succeed (before duplicates are taken out)"
        )
        parts.append(stage_one)
    if "score" in config.steps:
        scored = score_loads(config, _scored(config, pool))
        lines.append(_step_line("score (optional), each candidate's turns answered and scored", config, scored))
        parts.append(scored)
    if "stage2" in config.steps and (chosen := _bootstrapped(config, pool)):
        most = "at most" if config.assemble.sft.candidate_rule or own else "about"
        lines.append(f"stage 2: {most} {sum(chosen.values()):,.0f} dialogues")
        parts.append(stage_two_loads(config, chosen, own.lengths if own else None))
    if "history" in config.steps and (judged := _judged(config, pool)):
        lines.append(f"history: about {judged:,.0f} dialogues")
        parts.append(history_loads(config, judged))
    if loads := total(*parts):
        lines += ["", *_table(config, loads)]
    if "stage1" in config.steps and not own and sum(made.values()):
        paper = PAPER["train candidates"].size + PAPER["bench candidates"].size
        factor = paper / sum(made.values())
        lines += ["", f"stage 1 at the paper's {paper:,} candidates, in this mix of sources and kinds:"]
        lines += _table(config, {role: load.scaled(factor) for role, load in stage_one.items()})
    endpoints = [config.endpoints(step) for step in config.steps]
    return Plan(lines, endpoints={role: endpoint for some in endpoints for role, endpoint in some.items()})


def _sources(config: DataConfig) -> tuple[list[str], dict[str, Counter], dict[str, Load]]:
    """What the sources hold: lines, dialogues to make of each split by kind, and what Stage I asks of each role."""
    lines, tasks = list[str](), {"train": Counter(), "bench": Counter()}
    loads: dict[str, Load] = {}
    for name, source in config.sources.items():
        seeds, note = _count(source)
        strategies = {"red_team": config.red_team.tries_per_seed}
        dialogues: dict[Kind, int] = {kind: seeds * strategies.get(kind, 1) for kind in config.kinds_of(source)}
        tasks[source.split].update(dialogues)
        number = sum(dialogues.values())
        lines.append(f"source {name} ({source.reader}, {source.split}): {seeds:,} seeds{note}, {number:,} dialogues")
        loads = total(loads, stage_one_loads(config, seeds, dialogues))
    means = ", ".join(f"{kind} {mean_turns(config, kind):.2f}" for kind in sorted(tasks["train"] | tasks["bench"]))
    return [*lines, f"user turns, expected mean: {means}"], tasks, loads


@dataclass(frozen=True)
class _Own:
    """A user's dialogues: in words, how many of each kind, and the share of each number of turns."""

    said: str
    kinds: dict[Kind, float]
    lengths: dict[int, float]


def _own(config: DataConfig) -> _Own:
    path = Path(config.dialogues.path)
    if not path.is_file():
        return _Own(f"dialogues {path}: not there yet", {}, {})
    bad: list[BadRow] = []
    rows = [task.row for task in own_tasks(config, bad)]
    lengths = Counter(len(row.turns) for row in rows)
    turns = sum(length * number for length, number in lengths.items())
    return _Own(
        f"dialogues {path}: {len(rows):,} dialogues, {turns:,} turns{some_bad(bad)}",
        dict(Counter(row.kind for row in rows)),
        {length: number / len(rows) for length, number in lengths.items()},
    )


def _bootstrapped(config: DataConfig, candidates: Mapping[Kind, float]) -> dict[Kind, float]:
    """Stage II's dialogues by kind: those of the SFT pool, at most `bootstrap.candidates`, in the mix of SFT."""
    pool = {kind: (1 - config.assemble.rl_share) * number for kind, number in candidates.items()}
    mix = config.assemble.sft.mix
    wanted = config.bootstrap.candidates
    if wanted is None:
        return {kind: number for kind, number in pool.items() if mix.get(kind)}
    return {kind: min(pool.get(kind, 0), wanted * part / sum(mix.values())) for kind, part in mix.items() if part}


def _scored(config: DataConfig, candidates: Mapping[Kind, float]) -> dict[Kind, float]:
    """The candidates that step `score` looks at, by kind: those of the pools whose split has a rule."""
    splits = ((config.assemble.sft, 1 - config.assemble.rl_share), (config.assemble.rl, config.assemble.rl_share))
    shares: Counter[Kind] = Counter()
    for split, share in splits:
        if split.candidate_rule and split.size != 0:
            shares.update({kind: share for kind, part in split.mix.items() if part})
    return {kind: share * candidates.get(kind, 0) for kind, share in shares.items()}


def _step_line(what: str, config: DataConfig, loads: dict[str, Load]) -> str:
    """A step's calls by role, and what they cost where every role has a price."""
    calls = " and ".join(f"{load.calls:,.0f} of {role}" for role, load in loads.items())
    prices = [config.roles[role].usd(load.tokens_in, load.tokens_out) for role, load in loads.items()]
    cost = "" if None in prices else f", about ${sum(filter(None, prices)):,.0f}"
    return f"{what}: at most {calls} calls{cost}"


def _judged(config: DataConfig, candidates: Mapping[Kind, float]) -> float:
    """The dialogues that step `history` judges: those of risk kinds in the RL pool, as many as configured."""
    kinds = [kind for kind in RISK_KINDS if config.assemble.rl.mix.get(kind)]
    pool = config.assemble.rl_share * sum(candidates.get(kind, 0) for kind in kinds)
    return min(pool, config.assemble.rl.history_dependent.candidates or pool)


def _table(config: DataConfig, loads: dict[str, Load]) -> list[str]:
    """Calls at most, tokens and USD by role, and their sum; "?" where a role has no price."""
    usage = {
        role: {
            "model": config.roles[role].model,
            "calls": round(load.calls),
            "tokens_in": round(load.tokens_in),
            "tokens_out": round(load.tokens_out),
            "usd": config.roles[role].usd(load.tokens_in, load.tokens_out),
        }
        for role, load in loads.items()
        if load.calls and role in config.roles
    }
    if not usage:
        return ["no calls: no source has a seed yet"]
    prices = [numbers["usd"] for numbers in usage.values()]
    known = sum(price for price in prices if price is not None)
    calls = sum(numbers["calls"] for numbers in usage.values())
    note = f", and the roles marked ? without a price (see {config.prices or 'prices'})" if None in prices else ""
    if config.prices:
        note += f"; prices of {load_prices(config.prices).checked}"
    return [*cost_table(usage).splitlines(), f"together at most {calls:,} calls, about ${known:,.0f}{note}"]


def _count(source: SourceConfig) -> tuple[int, str]:
    if source.ids:
        return len(source.ids), ""
    wanted = places(source.limit)
    try:
        reader = SOURCES[source.reader]
        found = reader.count(source.path, source.fields, source.data_split, source.where, wanted.stop)
        return max(0, found - wanted.start), ""
    except UserError as error:
        most = 0 if wanted.stop is None else wanted.stop - wanted.start
        return most, f" ({'its limit' if most else 'unknown'}; {error})"
