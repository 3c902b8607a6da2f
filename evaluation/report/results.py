"""What the report is made of: one `ModelResult` for each model, out of its verdicts and answers, and `summary.json`."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from evaluation.config import EvaluationConfig, PassConfig
from evaluation.multi_turn.aggregate import Aggregate, aggregate
from evaluation.multi_turn.survival import Curve, kaplan_meier, observe
from evaluation.multi_turn.verdicts import JudgeIdentity, VerdictRow


@dataclass(frozen=True)
class ModelResult:
    """All numbers of one model.

    Attributes:
        name, title: key in the config, and name in tables.
        ends: how many dialogues ended in which way, "complete" first.
        not_played: dialogues that could not be played at all, such as one without its picture.
        judges: who gave the verdicts.
    """

    name: str
    title: str
    numbers: Aggregate
    survival: Curve
    ends: dict[str, int]
    not_played: int
    judges: list[JudgeIdentity]

    def to_dict(self) -> dict[str, Any]:
        """The model's entry in `summary.json`: the headline numbers on top, the details below them."""
        overall = self.numbers.to_dict()["overall"]
        details = self.numbers.to_dict() | {
            "survival": self.survival.to_dict(),
            "ends": self.ends,
            "not_played": self.not_played,
        }
        details.pop("overall")
        return {"title": self.title} | overall | {"median_failure_turn": self.survival.median} | details


def model_result(
    name: str, title: str, verdicts: Iterable[VerdictRow], passing: PassConfig, ends: dict[str, int], not_played: int
) -> ModelResult:
    """Computes everything about one model."""
    rows = list(verdicts)
    observations = observe(rows, failure_below=passing.failure_below, horizon=passing.horizon)
    judges = sorted({row.judge for row in rows}, key=lambda judge: (judge.model, judge.prompt_hash))
    curve = kaplan_meier(observations.values())
    return ModelResult(name, title, aggregate(rows, passing.rule()), curve, ends, not_played, judges)


def summary(results: list[ModelResult], config: EvaluationConfig) -> dict[str, Any]:
    """The content of `summary.json`."""
    judges = sorted({(judge.model, judge.prompt_hash) for result in results for judge in result.judges})
    return {
        "note": config.report.note,
        "judges": [{"model": model, "prompt_hash": prompt} for model, prompt in judges],
        "passing": config.passing.model_dump(),
        "models": {result.name: result.to_dict() for result in results},
    }
