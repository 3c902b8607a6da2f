"""What a run will cost before it runs: calls and tokens by role, from the plan, the prompts and a few assumptions.

Upper bounds where a run may stop early (attacks that succeed), averages elsewhere. The assumptions are the constants
below and those of `safer_steer.load`.
"""

from collections import defaultdict
from collections.abc import Mapping

from data_construction.config import DataConfig, TurnRange, eligible_techniques
from data_construction.prompts import load_prompts
from data_construction.red_team.techniques import POOLS
from safer_steer.dialogue import Kind
from safer_steer.load import ANSWER, PICTURE, SCORES, USER_TURN, Load, prompt_tokens

QUESTION, GUIDELINES = 40, 350  # tokens
PROBE, FORENSICS, INTENT, LEAK, REFUSAL, REWRITTEN = 100, 200, 250, 60, 10, 45  # of answers
PLANNED_TURN, EXPANDED_TURN, ANSWERED_TURN = 60, 45, 150
DOUBTED = 0.6  # share of rewrites that are not one question alone, which the refusal classifier looks at
REASKED = 0.05  # share of answers that are asked for twice
SUCCESS = 0.5  # share of attacks that succeed, and so become candidates


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
    prompts = load_prompts(config.prompts, config.policy)
    generator, attacks = loads["generator"], dialogues.get("red_team", 0)
    expanded = {kind: number for kind, number in dialogues.items() if kind != "red_team" and number}
    if expanded or (attacks and config.red_team.rewrite_of == "obfuscated"):
        generator.add(seeds * (1 + REASKED), prompt_tokens(prompts["probe"]) + PICTURE + QUESTION, PROBE)
    for kind, number in expanded.items():
        answered = kind == "benign" and config.expand.benign_answers == "always"
        out = mean_turns(config, kind) * (EXPANDED_TURN + (ANSWERED_TURN if answered else 0))
        generator.add(number * (1 + REASKED), prompt_tokens(prompts["expand"]) + PICTURE + QUESTION, out)
    if attacks:
        generator.add(seeds, prompt_tokens(prompts["forensics"]) + PICTURE + QUESTION, FORENSICS)
        asked = prompt_tokens(prompts["intent"]) + PICTURE + FORENSICS + 3 * QUESTION
        generator.add(attacks * (1 + REASKED), asked, INTENT)
        planned = mean_turns(config, "red_team") * PLANNED_TURN
        generator.add(
            attacks * (1 + REASKED),
            prompt_tokens(prompts["plan"]) + PICTURE + FORENSICS + INTENT + 5 * QUESTION,
            planned,
        )
        for number, share in turn_weights(config, "red_team").items():
            loads["target"].add_turns(attacks * share, number, PICTURE, ANSWER)
            loads["evaluator"].add_turns(
                attacks * share, number, prompt_tokens(prompts["leak"]) + PICTURE + ANSWER, LEAK
            )
    doubted = DOUBTED * (seeds * bool(expanded) + attacks)
    told = loads[config.quality.refusal_role]
    told.add(doubted, prompt_tokens(prompts["refusal"]) + QUESTION, REFUSAL)
    for kind, number in dialogues.items():  # of a script at least one turn is doubted nearly always
        told.add(
            number, prompt_tokens(prompts["refusal"]) + DOUBTED * mean_turns(config, kind) * EXPANDED_TURN, REFUSAL
        )
    return dict(loads)


def stage_two_loads(
    config: DataConfig, dialogues: Mapping[Kind, float], lengths: Mapping[int, float] | None = None
) -> dict[str, Load]:
    """What Stage II asks of each role for so many dialogues of each kind; `lengths`, the share of each number of turns,
    where it is known.
    """
    loads: defaultdict[str, Load] = defaultdict(Load)
    prompts, doubted = load_prompts(config.prompts, config.policy), 0.0
    for kind, number in dialogues.items():
        for turns, share in (lengths or turn_weights(config, kind)).items():
            loads["red"].add_turns(number * share, turns, prompt_tokens(prompts["rewrite"]) + PICTURE, REWRITTEN)
            loads["blue"].add_turns(number * share, turns, GUIDELINES + PICTURE, ANSWER)
            loads["evaluator"].add_turns(
                number * share, turns, prompt_tokens(prompts["turn_scores"]) + PICTURE + ANSWER, SCORES
            )
            doubted += DOUBTED * number * share * turns
    loads[config.quality.refusal_role].add(doubted, prompt_tokens(prompts["refusal"]) + REWRITTEN, REFUSAL)
    return dict(loads)


def score_loads(config: DataConfig, dialogues: Mapping[Kind, float]) -> dict[str, Load]:
    """What step `score` asks of each role at most: answers that Stage I has are not asked for again."""
    target, evaluator, prompts = Load(), Load(), load_prompts(config.prompts, config.policy)
    for kind, number in dialogues.items():
        for turns, share in turn_weights(config, kind).items():
            target.add_turns(number * share, turns, PICTURE, ANSWER)
            evaluator.add_turns(number * share, turns, prompt_tokens(prompts["turn_scores"]) + PICTURE + ANSWER, SCORES)
    return {"target": target, "evaluator": evaluator}


def history_loads(config: DataConfig, dialogues: float) -> dict[str, Load]:
    """What step `history` asks for so many dialogues: the last turn alone, and with its history of about eight."""
    load, prompts = Load(), load_prompts(config.prompts, config.policy)
    load.add(dialogues, prompt_tokens(prompts["request_risk"]) + PICTURE + USER_TURN, LEAK)
    load.add(dialogues, prompt_tokens(prompts["request_risk"]) + PICTURE + 8 * USER_TURN, LEAK)
    return {"evaluator": load}


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
