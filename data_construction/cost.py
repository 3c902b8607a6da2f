"""What a run will cost before it runs: calls and tokens by role, from the plan, the prompts and a few assumptions.

Upper bounds where a run may stop early (attacks that succeed), averages elsewhere. The assumptions are the constants
below; the answers' lengths depend on the models, so expect the real cost within a factor of two and see `run.json`.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from data_construction import expand, probe
from data_construction.bootstrap.rollout import REWRITE, TURN_SCORES
from data_construction.config import DataConfig, TurnRange, eligible_techniques
from data_construction.quality import writer
from data_construction.red_team import forensics, intent, plan, simulate
from data_construction.red_team.techniques import POOLS
from safer_steer.dialogue import Kind
from safer_steer.prompts import Prompt

# Tokens. A picture of a million pixels has about 1,300 for Qwen2.5-VL and 765 for GPT-4.1.
PICTURE, QUESTION, USER_TURN, ANSWER, GUIDELINES = 1000, 40, 35, 200, 350
CHARACTERS_A_TOKEN = 4
PROBE, FORENSICS, INTENT, LEAK, REFUSAL, REWRITTEN, SCORES = 100, 180, 120, 60, 10, 45, 90  # of answers
PLANNED_TURN, EXPANDED_TURN, ANSWERED_TURN = 60, 45, 150
DOUBTED = 0.3  # share of rewrites without a question mark, which the refusal classifier looks at
REASKED = 0.05  # share of answers that are asked for twice
SUCCESS = 0.5  # share of attacks that succeed, and so become candidates


@dataclass
class Load:
    """What a role has to do."""

    calls: float = 0.0
    tokens_in: float = 0.0
    tokens_out: float = 0.0

    def add(self, calls: float, tokens_in: float, tokens_out: float) -> None:
        """Adds so many calls with so many tokens each."""
        self.calls += calls
        self.tokens_in += calls * tokens_in
        self.tokens_out += calls * tokens_out

    def scaled(self, factor: float) -> "Load":
        """So many times as much."""
        return Load(self.calls * factor, self.tokens_in * factor, self.tokens_out * factor)


Loads = Mapping[str, Load]


def turn_weights(config: DataConfig, kind: Kind) -> dict[int, float]:
    """Number of turns -> share of the kind's dialogues."""
    turns: TurnRange = getattr(config.turns, kind)
    ranges = [(2, 10)]
    if kind == "red_team":
        pool = POOLS[config.red_team.technique_pool]
        names = eligible_techniques(config.red_team, turns)
        ranges = [(pool[name].min_turns, pool[name].max_turns) for name in names]
    shares: defaultdict[int, float] = defaultdict(float)
    for low, high in ranges:
        weights = turns.within(low, high)
        for number, weight in weights.items():
            shares[number] += weight / sum(weights.values()) / len(ranges)
    return dict(shares)


def mean_turns(config: DataConfig, kind: Kind) -> float:
    """The expected number of turns."""
    return sum(number * share for number, share in turn_weights(config, kind).items())


def stage_one_loads(config: DataConfig, seeds: int, dialogues: Mapping[Kind, int]) -> dict[str, Load]:
    """What Stage I asks of each role for a source's seeds; `dialogues` has the tasks of each kind."""
    loads: defaultdict[str, Load] = defaultdict(Load)
    generator, attacks = loads["generator"], dialogues.get("red_team", 0)
    expanded = {kind: number for kind, number in dialogues.items() if kind != "red_team" and number}
    if expanded:
        generator.add(seeds * (1 + REASKED), _prompt(probe.PROMPT) + PICTURE + QUESTION, PROBE)
    for kind, number in expanded.items():
        answered = kind == "benign" and config.expand.benign_answers == "always"
        out = mean_turns(config, kind) * (EXPANDED_TURN + (ANSWERED_TURN if answered else 0))
        generator.add(number * (1 + REASKED), _prompt(expand.PROMPT) + PICTURE + QUESTION, out)
    if attacks:
        generator.add(seeds, _prompt(forensics.PROMPT) + PICTURE + QUESTION, FORENSICS)
        generator.add(attacks, _prompt(intent.PROMPT) + PICTURE + FORENSICS + 3 * QUESTION, INTENT)
        planned = mean_turns(config, "red_team") * PLANNED_TURN
        generator.add(attacks * (1 + REASKED), _prompt(plan.PROMPT) + PICTURE + FORENSICS + 5 * QUESTION, planned)
        for number, share in turn_weights(config, "red_team").items():
            _add_turns(loads["target"], attacks * share, number, PICTURE, ANSWER)
            _add_turns(loads["evaluator"], attacks * share, number, _prompt(simulate.PROMPT) + PICTURE + ANSWER, LEAK)
    doubted = DOUBTED * (seeds * bool(expanded) + attacks)
    loads[config.quality.refusal_role].add(doubted, _prompt(writer.PROMPT) + QUESTION, REFUSAL)
    return dict(loads)


def stage_two_loads(config: DataConfig, dialogues: Mapping[Kind, float]) -> dict[str, Load]:
    """What Stage II asks of each role for so many dialogues of each kind."""
    loads = {role: Load() for role in ("red", "blue", "evaluator")}
    for kind, number in dialogues.items():
        for turns, share in turn_weights(config, kind).items():
            _add_turns(loads["red"], number * share, turns, _prompt(REWRITE) + PICTURE, REWRITTEN)
            _add_turns(loads["blue"], number * share, turns, GUIDELINES + PICTURE, ANSWER)
            _add_turns(loads["evaluator"], number * share, turns, _prompt(TURN_SCORES) + PICTURE + ANSWER, SCORES)
    return loads


def candidates(dialogues: Mapping[Kind, float]) -> float:
    """How many of the tasks become candidates."""
    return sum(number * (SUCCESS if kind == "red_team" else 1.0) for kind, number in dialogues.items())


def total(*parts: Loads) -> dict[str, Load]:
    """The sum by role."""
    result: defaultdict[str, Load] = defaultdict(Load)
    for loads in parts:
        for role, load in loads.items():
            result[role] = Load(
                *(getattr(result[role], name) + getattr(load, name) for name in ("calls", "tokens_in", "tokens_out"))
            )
    return dict(result)


def usd(config: DataConfig, role: str, load: Load) -> float | None:
    """What a load costs; None where the role's endpoint has no price."""
    endpoint = config.roles[role]
    if endpoint.price_in is None or endpoint.price_out is None:
        return None
    return (load.tokens_in * endpoint.price_in + load.tokens_out * endpoint.price_out) / 1e6


def _add_turns(load: Load, dialogues: float, turns: int, fixed: int, out: int) -> None:
    """Adds the calls of whole conversations: each turn's prompt holds the turns before it."""
    for turn in range(1, turns + 1):
        load.add(dialogues, fixed + turn * USER_TURN + (turn - 1) * ANSWER, out)


def _prompt(prompt: Prompt) -> int:
    return len(prompt.source) // CHARACTERS_A_TOKEN
