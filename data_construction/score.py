"""Step `score` (Sec. 3, Fig. 2): the train candidates, scored by Stage II's evaluator -> `candidate_scores.jsonl`.

What is scored, turn by turn, are answers of the fixed target: those that Stage I has of a played attack, and of a
question-answer row its own; the target is asked for the others. Rule 1 (`assemble.sft.candidate_rule`) says which
candidates Stage II bootstraps, Rule 2 (`assemble.rl.candidate_rule`) from which ones STEER-RL is drawn. A candidate
without all its scores is in neither, and is counted. Scores do not depend on the rules. Resumes by task id.
"""

from collections.abc import Iterable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from data_construction.assemble.config import Measures, RlSplit, ScoreRule, SftSplit
from data_construction.assemble.facts import RowFacts, row_facts
from data_construction.assemble.select import Pools, Rule
from data_construction.bootstrap.rollout import score_turn
from data_construction.calls import Caller, Rejected
from data_construction.config import DataConfig
from data_construction.red_team.simulate import target_answer
from data_construction.seeds import ingested_seeds
from data_construction.stage_one import DIALOGUES
from data_construction.step import RowTask, require_finished, require_some, step
from safer_steer.answer_format import PLAIN
from safer_steer.dialogue import Dialogue
from safer_steer.rows import Reject
from safer_steer.rubric import SCALE_MAX, TurnScores
from safer_steer.stage import Result, Stage
from safer_steer.store import read_jsonl

SCORED, REJECTS = "candidate_scores.jsonl", "score_rejects.jsonl"
NAMES = {"sft": "Rule 1", "rl": "Rule 2"}  # of the split that the rule's candidates are for
PAPER = {"sft": 15_400, "rl": 24_000}  # candidates that the rules leave of 105 K (Fig. 2)


class CandidateScores(BaseModel):
    """The scores of the answers to a candidate's turns, in order; `id` is the dialogue's."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    id: str
    scores: Annotated[list[TurnScores], Field(min_length=1)]
    meta: dict[str, Any] = {}


def score(config: DataConfig) -> Stage:
    """Scores the candidates of the splits that have a rule.

    Raises:
        UserError: Stage I is not finished.
    """
    require_finished(config.folder, "stage1")
    return step(
        config,
        "score",
        CandidateScorer,
        cache(partial(score_tasks, config)),
        facts={},  # what only chooses the tasks may change
        grows=True,
        prompts=("turn_scores",),
        after=partial(_finish, config),
        kept=SCORED,
        rejects=REJECTS,
    )


def _ruled(config: DataConfig) -> dict[str, SftSplit | RlSplit]:
    splits: dict[str, SftSplit | RlSplit] = {"sft": config.assemble.sft, "rl": config.assemble.rl}
    return {name: split for name, split in splits.items() if split.candidate_rule and split.size != 0}


def score_tasks(config: DataConfig) -> list[RowTask]:
    """The train rows that a split with a rule could take."""
    pools, splits = Pools.of(config, ingested_seeds(config.folder)), _ruled(config)
    rows = row_facts(config.folder / DIALOGUES)
    return [
        RowTask("score", row.id, row.read)
        for row in rows
        if (to := splits.get(pools.pool(row))) and to.mix.get(row.kind)
    ]


def _finish(config: DataConfig, result: Result) -> dict[str, int]:
    require_some("score", result.counts, REJECTS, "correct the endpoints of target and evaluator")
    for name, left in rule_counts(config, candidate_measures(config.folder).values()).items():
        print(f"{NAMES[name]} leaves {left:,} of {result.counts.kept:,} scored candidates (paper: {PAPER[name]:,})")
    return result.counts.as_dict() | {"turns relocked": sum(row["meta"]["relocked"] for row in result.kept.rows())}


def is_wanted(config: DataConfig) -> bool:
    """True when some split has a rule."""
    return bool(_ruled(config))


def candidate_measures(folder: Path) -> dict[str, Measures]:
    """What the rules look at, by the candidate's id."""
    return {row.id: Measures.of(row.scores) for row in read_jsonl(folder / SCORED, CandidateScores)}


def rule_counts(config: DataConfig, measured: Iterable[Measures]) -> dict[str, int]:
    """Split -> how many of all scored candidates its rule leaves."""
    rules, found = {name: split.candidate_rule for name, split in _ruled(config).items()}, list(measured)
    return {name: sum(not rule.why_not(measures) for measures in found) for name, rule in rules.items() if rule}


def score_stats(config: DataConfig) -> dict[str, Any]:
    """How many candidates are scored, are left by each rule, and have at least each score."""
    measured = list(candidate_measures(config.folder).values())
    return {"scored": len(measured), "left": rule_counts(config, measured), "at_least": score_table(measured)}


def candidate_rules(config: DataConfig, name: str) -> list[Rule]:
    """The rule of a split, where it has one, over the scores in the data folder.

    Raises:
        UserError: the candidates are not scored.
    """
    rule = _ruled(config)[name].candidate_rule if name in _ruled(config) else None
    if rule is None:
        return []
    require_finished(config.folder, "score")
    return [by_scores(NAMES[name], rule, candidate_measures(config.folder))]


def by_scores(name: str, rule: ScoreRule, measured: Mapping[str, Measures]) -> Rule:
    """Leaves out rows whose candidate has no scores, or scores outside the rule's bounds."""

    def why(row: RowFacts) -> str:
        if row.candidate not in measured:
            return f"{name}: not scored"
        outside = rule.why_not(measured[row.candidate])
        return f"{name}: {outside}" if outside else ""

    return why


def score_table(measured: Iterable[Measures]) -> dict[str, list[int]]:
    """How many candidates have at least 1, 2, ... 10 in each measure, so that a user can choose the bounds."""
    columns = dict(zip(Measures._fields, zip(*measured, strict=True), strict=False))
    return {
        name: [sum(value >= low for value in values) for low in range(1, SCALE_MAX + 1)]
        for name, values in columns.items()
    }


class CandidateScorer:
    """Scores candidates, any number at once."""

    def __init__(self, config: DataConfig, caller: Caller):
        self._caller = caller

    async def __call__(self, task: RowTask) -> CandidateScores | Reject:
        """One score for each turn, or why there are none."""
        row, caller = task.load(), self._caller
        answers, scores, history, relocked = _known_answers(row), list[TurnScores](), list[tuple[str, str]](), 0
        shown = [row.images_at(number) for number in range(len(row.turns))]
        try:
            for number, turn in enumerate(row.turns):
                key = (task.task_id, number)
                answer = answers[number]
                if answer is None:
                    turns = [*history, (turn.user, None)]
                    answer = await target_answer(caller, turns, shown[: number + 1], key)
                answer = PLAIN.split(answer).answer
                scored = await score_turn(caller, history, turn.user, answer, shown[: number + 1], key)
                scores.append(scored.scores)
                relocked += scored.relocked
                history.append((turn.user, answer))
        except Rejected as stop:
            done = {"dialogue": row.id, "scores": [item.model_dump(mode="json") for item in scores]}
            return stop.with_row(done).reject
        return CandidateScores(id=row.id, scores=scores, meta={"task": task.task_id, "relocked": relocked})


def _known_answers(row: Dialogue) -> list[str | None]:
    """The answers that Stage I has: the row's own, and the target's as far as an attack was played."""
    played = [turn["assistant"] for turn in row.meta.get("transcript", [])]
    played += [None] * (len(row.turns) - len(played))
    return [turn.assistant or answer for turn, answer in zip(row.turns, played, strict=True)]
