"""The config of the assembly: sizes, mixes and conditions of the three splits."""

from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import AfterValidator, Field, model_validator

from safer_steer.config import Section
from safer_steer.dialogue import MAX_TURNS, Kind
from safer_steer.rubric import SCALE_MAX, TurnScores


class Split(Section):
    """Size and kind mix of one split; `size: null` takes every row of the kinds in `mix`."""

    size: Annotated[int, Field(ge=0)] | None = None
    mix: dict[Kind, Annotated[float, Field(ge=0)]] = {"benign": 1.0, "obfuscated": 1.0, "red_team": 1.0}

    mean_turns: Annotated[float, Field(ge=1, le=MAX_TURNS)] | None = None
    """User turns of a row on average, which rows are selected for; null: as they come."""

    @model_validator(mode="after")
    def _has_a_choice(self) -> Self:
        if self.mean_turns is not None and self.size is None:
            raise ValueError("mean_turns needs a size: a split that takes every row cannot choose their lengths")
        return self

    @model_validator(mode="after")
    def _some_kind(self) -> Self:
        if not sum(self.mix.values()):
            raise ValueError("mix needs at least one kind with a weight above 0")
        return self


def _in_order(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError(f"the lower bound {bounds[0]:g} is above the upper one {bounds[1]:g}")
    return bounds


Score = Annotated[float, Field(ge=1, le=SCALE_MAX)]
Bounds = Annotated[tuple[Score, Score], AfterValidator(_in_order)]


class Measures(NamedTuple):
    """What rules look at of the scores of a dialogue's turns, each 1-10."""

    lowest_safety: float
    mean_usefulness: float
    mean_faithfulness: float

    @classmethod
    def of(cls, scores: Sequence[TurnScores]) -> Self:
        """Of one entry for each assistant turn, at least one."""
        return cls(
            min(turn.safety for turn in scores),
            sum(turn.usefulness for turn in scores) / len(scores),
            sum(turn.faithfulness for turn in scores) / len(scores),
        )


class ScoreRule(Section):
    """Which candidates a split is drawn from, by the scores of the target's answers (step `score`); both bounds belong
    to it.
    """

    lowest_safety: Bounds = (1, SCALE_MAX)
    """Of all turns."""
    mean_usefulness: Bounds = (1, SCALE_MAX)
    mean_faithfulness: Bounds = (1, SCALE_MAX)

    def why_not(self, measures: Measures) -> str:
        """The first measure that is outside its bounds; "" for none."""
        for name, value in measures._asdict().items():
            low, high = getattr(self, name)
            if not low <= value <= high:
                return f"{name.replace('_', ' ')} outside {low:g}-{high:g}"
        return ""


class SftSplit(Split):
    """STEER-SFT; `origin` is `bootstrapped` (Stage II) or `answered` (Stage I rows whose every turn has an answer)."""

    origin: Literal["bootstrapped", "answered"] = "bootstrapped"
    candidate_rule: ScoreRule | None = None
    """Rule 1: what Stage II bootstraps; null: any candidate."""


class HistoryDependence(Section):
    """Which risk rows STEER-RL takes (step `history`): low-risk by the last turn alone, high-risk with its history."""

    max_alone: Annotated[int, Field(ge=1, le=5)] = 2
    """Risk of the last turn alone, 1 harmless - 5 asks for harm."""
    min_with_history: Annotated[int, Field(ge=1, le=5)] = 4
    """Risk of the last turn with its history."""
    alone_shows_pictures: bool = True
    """False: the pictures count as history too, as in h_t = (x, u_1, ...)."""
    candidates: Annotated[int, Field(ge=1)] | None = None
    """Rows to judge, two calls each, in RL's mix; None: all."""

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if self.max_alone >= self.min_with_history:
            raise ValueError(
                f"max_alone {self.max_alone} must be below min_with_history {self.min_with_history}: a row depends on "
                "its history only when that raises the risk"
            )
        return self


class RlSplit(Split):
    """STEER-RL; `history_dependent: null` takes risk rows whatever their last turn says. Benign rows hold helpfulness
    and are not subject to it.
    """

    history_dependent: HistoryDependence | None = None
    candidate_rule: ScoreRule | None = None
    """Rule 2; null: any candidate."""


class Assemble(Section):
    """The three splits; `rl_share` of the train pictures are set aside for STEER-RL, so that no picture is in both."""

    rl_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    sft: SftSplit = SftSplit()
    rl: RlSplit = RlSplit()
    bench: Split = Split()
