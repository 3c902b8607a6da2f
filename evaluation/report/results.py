"""What the report is made of: one `ModelResult` for each model, out of its files, and how each two of them compare."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, combinations
from pathlib import Path

import pandas as pd

from evaluation.benchmarks import paper_order
from evaluation.config import ADAPTIVE, role_of
from evaluation.multi_turn.adaptive import count_user_turns
from evaluation.multi_turn.aggregate import Numbers, PassConfig, aggregate, counted, dialogue_table, turn_table
from evaluation.multi_turn.inference import ANSWERS, REJECTS, count_ends
from evaluation.multi_turn.inference import RECORD as INFERENCE_RECORD
from evaluation.multi_turn.judge import MAIN_JUDGE, VERDICTS, judge_file
from evaluation.multi_turn.judge import RECORD as JUDGE_RECORD
from evaluation.multi_turn.moves import by_move, read_moves
from evaluation.multi_turn.paired import paired
from evaluation.multi_turn.survival import Curve, kaplan_meier, log_rank
from evaluation.multi_turn.verdicts import JudgeIdentity, read_verdicts
from safer_steer.errors import UserError
from safer_steer.runs import is_finished
from safer_steer.store import read_jsonl

Unlike = Mapping[tuple[str, str], Collection[str]]


@dataclass(frozen=True)
class ModelResult:
    """All numbers of one model.

    Attributes:
        name, title: key in the config, below `adaptive/` where the tutor attacked with mode `both`; name in tables.
        folder: its answers and verdicts.
        dialogues: its `dialogue_table`.
        numbers: see `aggregate`.
        survival, survival_by_benchmark: curves of all multi-turn dialogues, and of each multi-turn benchmark.
        ends: how many dialogues ended in which way, "complete" first.
        not_played: dialogues that could not be played at all, such as one without its picture.
        judges: who gave the verdicts.
        moves: by which move of the tutor dialogues fell, see `by_move`; empty for the benchmark's own user turns.
        user_turns: who wrote those after the first, see `count_user_turns`; empty for the benchmark's own.
        origin: what made the answers: model, mode of the user turns, picture size, command, commit; empty where no
            record is.
    """

    name: str
    title: str
    folder: Path
    dialogues: pd.DataFrame
    numbers: Numbers
    survival: Curve
    survival_by_benchmark: dict[str, Curve]
    ends: dict[str, int]
    not_played: int
    judges: list[JudgeIdentity]
    moves: list[Numbers]
    user_turns: dict[str, int]
    origin: Numbers

    @property
    def adaptive(self) -> bool:
        """Whether a tutor was to write user turns."""
        return self.origin["mode"] == ADAPTIVE if self.origin else bool(self.user_turns)

    @property
    def repeats(self) -> int:
        """Samples of each dialogue."""
        return int(self.dialogues.groupby("sample_of").size().max()) if len(self.dialogues) else 1

    def to_dict(self) -> Numbers:
        """The model's entry in `summary.json`: the headline numbers on top, the details below them."""
        details = dict(self.numbers)
        overall, benign = details.pop("overall"), details["by_kind"].get("benign")
        details |= {
            "benign_help": benign and benign["help"],
            "survival": asdict(self.survival),
            "survival_by_benchmark": {name: asdict(curve) for name, curve in self.survival_by_benchmark.items()},
            "repeats": self.repeats,
            "ends": self.ends,
            **({"by_move": self.moves} if self.moves else {}),
            **({"user_turns": self.user_turns} if self.adaptive else {}),
            "not_played": self.not_played,
            "origin": self.origin,
        }
        return {"title": self.title} | overall | {"median_failure_turn": self.survival.median} | details


def check_finished(folder: Path, judge: str = MAIN_JUDGE) -> None:
    """Refuses what was stopped before its end: a turn without an answer or a verdict yet would be in no count.

    Raises:
        UserError: names the record that says so.
    """
    for record in (folder / INFERENCE_RECORD, folder / judge_file(JUDGE_RECORD, judge)):
        if record.is_file() and not is_finished(record):
            raise UserError(
                f"{record} says that its run has not come to its end, so numbers of it would leave out what is "
                "missing; start the same evaluation again, it continues from where it was"
            )


def load_result(folder: Path, name: str, title: str, passing: PassConfig, judge: str = MAIN_JUDGE) -> ModelResult:
    """Computes everything about one model from its folder.

    Raises:
        UserError: the folder has no verdicts of that judge, or not yet all of them.
    """
    path = folder / judge_file(VERDICTS, judge)
    if not path.is_file():
        raise UserError(f"model {name} has no verdicts at {path}; run inference and judging first")
    check_finished(folder, judge)
    turns = turn_table(read_verdicts(path))
    dialogues = dialogue_table(turns, passing)
    several = _several(dialogues)
    names = sorted(several.benchmark.unique(), key=paper_order)
    moves = read_moves(folder / ANSWERS)
    return ModelResult(
        name,
        title,
        folder,
        dialogues,
        aggregate(turns, dialogues, passing),
        kaplan_meier(several),
        {name: kaplan_meier(several[several.benchmark == name]) for name in names},
        count_ends(folder / ANSWERS),
        _not_played(folder),
        sorted(set(turns.judge), key=lambda item: (item.model, item.prompt_hash, item.version or "")),
        by_move(turns[turns.dialogue.isin(several.index)], moves, passing) if moves else [],
        count_user_turns(folder / ANSWERS),
        _origin(folder),
    )


def _several(dialogues: pd.DataFrame) -> pd.DataFrame:
    """The multi-turn dialogues: survival is over these."""
    return dialogues[~dialogues.single_turn]


def _not_played(folder: Path) -> int:
    if not (folder / REJECTS).is_file():
        return 0
    rejected = {row["id"] for row in read_jsonl(folder / REJECTS)}
    left = rejected - {row["id"] for row in read_jsonl(folder / ANSWERS)} if rejected else rejected
    return sum(name.rpartition("#")[0] not in left for name in left)  # the samples of a dialogue count once


def _origin(folder: Path) -> Numbers:
    path = folder / "infer.json"
    if not path.is_file():
        return {}
    record = json.loads(path.read_text(encoding="utf-8"))
    facts = record["facts"]["config"]
    wanted = {name: record.get(name) for name in ("command", "git_commit", "started_at", "fingerprint")}
    wanted["mode"] = ADAPTIVE if "tutor" in facts["roles"] else "static"
    wanted["weights"] = _weights(facts)
    wanted["inputs"] = record["facts"]["inputs"]  # hashes of benchmark files and their pictures
    return wanted | {name: facts[name] for name in ("model", "sampling", "max_pixels", "answer_format")}


def _weights(facts: Numbers) -> str | None:
    """The fingerprint of the model under test, where the run served its checkpoint; None where no record is of it.

    A checkpoint's service has the model's name, which no other service may have.
    """
    own = [found for service, found in facts["weights"].items() if role_of("evaluated", service) in facts["roles"]]
    if not own and "tutor" not in facts["roles"]:
        own = list(facts["weights"].values())  # of a service of the config, and there is nobody else
    return next(iter(own), None)


def survival_panels(results: list[ModelResult]) -> dict[str, dict[str, Curve]]:
    """Panel title -> model title -> curve: all multi-turn dialogues, then each benchmark; none without any."""
    if not any(result.survival_by_benchmark for result in results):
        return {}
    panels = {"all benchmarks": {result.title: result.survival for result in results}}
    for name in dict.fromkeys(name for result in results for name in result.survival_by_benchmark):
        having = [result for result in results if name in result.survival_by_benchmark]
        panels[name] = {result.title: result.survival_by_benchmark[name] for result in having}
    return panels


def by_mode(played: Sequence[ModelResult]) -> tuple[list[ModelResult], dict[str, ModelResult]]:
    """The models of an evaluation as they are, and model -> the same one attacked by the tutor, with mode `both`."""
    prefix = f"{ADAPTIVE}/"
    attacked = {result.name.removeprefix(prefix): result for result in played if result.name.startswith(prefix)}
    return [result for result in played if not result.name.startswith(prefix)], attacked


def pairs(
    results: list[ModelResult],
    passing: PassConfig,
    attacked: Mapping[str, ModelResult] | None = None,
    unlike: Unlike | None = None,
) -> list[Numbers]:
    """Every two models, in order; each with itself under the tutor's attack; every two under attack: `paired` on shared
    dialogues; `log_rank` over all multi-turn dialogues of each, and `log_rank_by_benchmark`.

    Args:
        results: the models.
        passing: how intervals are drawn.
        attacked: model -> the same model with user turns that a tutor wrote.
        unlike: names of two models -> dialogues of the same id that are not the same: no pairs.
    """
    attacked, unlike = attacked or {}, unlike or {}
    same = [(result, attacked[result.name]) for result in results if result.name in attacked]
    found = []
    for a, b in chain(combinations(results, 2), same, combinations(attacked.values(), 2)):
        both = [_several(result.dialogues) for result in (a, b)]
        tests = {
            name: log_rank(*(table[table.benchmark == name] for table in both))
            for name in a.survival_by_benchmark
            if name in b.survival_by_benchmark
        }
        alike = [without(result.dialogues, unlike.get((a.name, b.name), ())) for result in (a, b)]
        numbers = paired(*map(counted, alike), passing, names=(a.title, b.title))
        found.append(numbers | {"log_rank": log_rank(*both), "log_rank_by_benchmark": tests})
    return found


def without(dialogues: pd.DataFrame, left_out: Collection[str]) -> pd.DataFrame:
    """A dialogue table without all samples of some dialogues."""
    return dialogues[~dialogues.sample_of.isin(list(left_out))]


def summary(results: list[ModelResult], compared: list[Numbers], passing: PassConfig) -> Numbers:
    """The numbers of `summary.json`."""
    judges = sorted({item for result in results for item in result.judges}, key=lambda item: item.model_dump_json())
    return {
        "judges": [item.model_dump() for item in judges],
        "passing": passing.model_dump(),
        "models": {result.name: result.to_dict() for result in results},
        "pairs": compared,
    }
