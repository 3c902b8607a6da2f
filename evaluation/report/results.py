"""What the report is made of: one `ModelResult` for each model, out of its files, and how each two of them compare."""

import json
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from evaluation.benchmarks import benchmark, paper_order
from evaluation.config import PassConfig
from evaluation.multi_turn.aggregate import Aggregate, aggregate_records
from evaluation.multi_turn.inference import ANSWERS, REJECTS, count_ends
from evaluation.multi_turn.judge import MAIN_JUDGE, VERDICTS, judge_file
from evaluation.multi_turn.paired import PairedResult, paired
from evaluation.multi_turn.records import DialogueRecord, collect
from evaluation.multi_turn.survival import Curve, LogRank, Observation, kaplan_meier, log_rank, observe
from evaluation.multi_turn.verdicts import JudgeIdentity, VerdictRow, read_verdicts
from safer_steer.errors import UserError
from safer_steer.store import read_jsonl


@dataclass(frozen=True)
class ModelResult:
    """All numbers of one model.

    Attributes:
        name, title: key in the config, and name in tables.
        records, observations: by dialogue; survival is over multi-turn benchmarks only.
        survival, survival_by_benchmark: curves of all multi-turn dialogues, and of each multi-turn benchmark.
        ends: how many dialogues ended in which way, "complete" first.
        not_played: dialogues that could not be played at all, such as one without its picture.
        judges: who gave the verdicts.
        origin: what made the answers: model, mode of the user turns, picture size, command, commit; empty where no
            record is.
    """

    name: str
    title: str
    records: dict[str, DialogueRecord]
    observations: dict[str, Observation]
    numbers: Aggregate
    survival: Curve
    survival_by_benchmark: dict[str, Curve]
    ends: dict[str, int]
    not_played: int
    judges: list[JudgeIdentity]
    origin: dict[str, Any]

    def observations_of(self, name: str) -> list[Observation]:
        """The observations of one benchmark."""
        return [item for key, item in self.observations.items() if self.records[key].benchmark == name]

    def to_dict(self) -> dict[str, Any]:
        """The model's entry in `summary.json`: the headline numbers on top, the details below them."""
        details = self.numbers.to_dict()
        overall = details.pop("overall")
        details |= {
            "survival": self.survival.to_dict(),
            "survival_by_benchmark": {name: curve.to_dict() for name, curve in self.survival_by_benchmark.items()},
            "ends": self.ends,
            "not_played": self.not_played,
            "origin": self.origin,
        }
        return {"title": self.title} | overall | {"median_failure_turn": self.survival.median} | details


@dataclass(frozen=True)
class ModelPair:
    """Two models: paired tests on shared dialogues, and log-rank tests of their survival, of all multi-turn dialogues
    and by benchmark; None where there is nothing to test.
    """

    paired: PairedResult
    log_rank: LogRank | None
    log_rank_by_benchmark: dict[str, LogRank | None]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        by_benchmark = {name: test and asdict(test) for name, test in self.log_rank_by_benchmark.items()}
        tests = {"log_rank": self.log_rank and asdict(self.log_rank), "log_rank_by_benchmark": by_benchmark}
        return self.paired.to_dict() | tests


def load_result(folder: Path, name: str, title: str, passing: PassConfig, judge: str = MAIN_JUDGE) -> ModelResult:
    """Computes everything about one model from its folder; verdicts are read once, row by row.

    Raises:
        UserError: the folder has no verdicts of that judge.
    """
    path = folder / judge_file(VERDICTS, judge)
    if not path.is_file():
        raise UserError(f"model {name} has no verdicts at {path}; run inference and judging first")
    judges: set[JudgeIdentity] = set()
    records = collect(_noting_judges(path, judges))
    several = {key: record for key, record in records.items() if not benchmark(record.benchmark).single_turn}
    observations = observe(several, failure_below=passing.failure_below, horizon=passing.horizon)
    groups: dict[str, list[Observation]] = {}
    for key, record in several.items():
        groups.setdefault(record.benchmark, []).append(observations[key])
    return ModelResult(
        name,
        title,
        records,
        observations,
        aggregate_records(records.values(), passing.rule()),
        kaplan_meier(observations.values()),
        {
            benchmark_name: kaplan_meier(group)
            for benchmark_name, group in sorted(groups.items(), key=lambda item: paper_order(item[0]))
        },
        count_ends(folder / ANSWERS),
        _not_played(folder),
        sorted(judges, key=lambda item: (item.model, item.prompt_hash, item.version or "")),
        _origin(folder),
    )


def _noting_judges(path: Path, judges: set[JudgeIdentity]):
    row: VerdictRow
    for row in read_verdicts(path):
        judges.add(row.judge)
        yield row


def _not_played(folder: Path) -> int:
    if not (folder / REJECTS).is_file():
        return 0
    rejected = {row["id"] for row in read_jsonl(folder / REJECTS)}
    if not rejected:
        return 0
    return len(rejected - {row["id"] for row in read_jsonl(folder / ANSWERS)})


def _origin(folder: Path) -> dict[str, Any]:
    path = folder / "infer.json"
    if not path.is_file():
        return {}
    record = json.loads(path.read_text(encoding="utf-8"))
    facts = record["facts"]["config"]
    wanted = {name: record.get(name) for name in ("command", "git_commit", "started_at", "fingerprint")}
    wanted["mode"] = "adaptive" if "tutor" in facts["roles"] else "static"
    wanted["weights"] = next(iter(facts["weights"].values()), None)  # of the checkpoint that the run served itself
    return wanted | {name: facts[name] for name in ("model", "sampling", "max_pixels")}


def survival_panels(results: list[ModelResult]) -> dict[str, dict[str, Curve]]:
    """Panel title -> model title -> curve: all multi-turn dialogues, then each benchmark."""
    panels = {"all benchmarks": {result.title: result.survival for result in results}}
    for name in dict.fromkeys(name for result in results for name in result.survival_by_benchmark):
        having = [result for result in results if name in result.survival_by_benchmark]
        panels[name] = {result.title: result.survival_by_benchmark[name] for result in having}
    return panels


def pairs(results: list[ModelResult], passing: PassConfig) -> list[ModelPair]:
    """Every two models, in order."""
    return [
        ModelPair(
            paired(a.records, b.records, passing.rule(), names=(a.title, b.title)),
            log_rank(a.observations.values(), b.observations.values()),
            {
                name: log_rank(a.observations_of(name), b.observations_of(name))
                for name in a.survival_by_benchmark
                if name in b.survival_by_benchmark
            },
        )
        for a, b in combinations(results, 2)
    ]


def summary(results: list[ModelResult], compared: list[ModelPair], passing: PassConfig) -> dict[str, Any]:
    """The numbers of `summary.json`."""
    judges = sorted({item for result in results for item in result.judges}, key=lambda item: item.model_dump_json())
    return {
        "judges": [item.model_dump() for item in judges],
        "passing": passing.model_dump(),
        "models": {result.name: result.to_dict() for result in results},
        "pairs": [pair.to_dict() for pair in compared],
    }
