"""The `safer_steer:` section of a Stage III config: tutor, rewards, turns, limits, services, data. Engine-free."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from safer_steer.answer_format import AnswerFormat
from safer_steer.config import Operational, Section
from safer_steer.dialogue import Pictures
from safer_steer.picture_size import MAX_PIXELS, PixelLimit
from safer_steer.servers import ServiceConfig
from safer_steer_verl.interactions.safety_tutor import TutorConfig
from safer_steer_verl.layout import LayoutConfig
from safer_steer_verl.platform.attention import Attention
from safer_steer_verl.utils.tcsr import TURN_RULES, TcsrConfig
from safer_steer_verl.utils.turn_reward import RewardConfig

TokenCheck = Literal["strict", "warn", "off"]


class TurnLimits(Section):
    """Length of a trajectory's answers, in tokens."""

    max_tokens: Annotated[int, Field(ge=1)]
    """Of one answer; longer ones are cut there."""
    min_tokens: Annotated[int, Field(ge=1)] = 16
    """Room a turn needs; with less left the trajectory ends as `context_full`. Our choice."""
    tutor_budget_s: Annotated[float, Field(gt=0), Operational] = 600.0
    """Seconds for the tutor's verdict on one turn, waiting, retries and re-ask included; then the turn is unscored.
    Our choice.
    """

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_tokens > self.max_tokens:
            raise ValueError(f"min_tokens {self.min_tokens} is above max_tokens {self.max_tokens}")
        return self


class DataConfig(Section):
    """Where the prompts come from."""

    source: str
    """Steer_rl.jsonl: Dialogue rows; picture paths are relative to its folder."""
    validation: list[str] = []
    """Files like `source`: held-out dialogues, played every trainer.test_freq steps."""
    turns: Literal["all", "last"] = "all"
    """`all` user turns, or the `last` one alone with all the dialogue's pictures (ablation: single-turn data, Table 4).
    """
    max_pixels: PixelLimit = MAX_PIXELS
    """Px of one picture, in prompts and rollouts; larger ones are reduced."""
    pictures: Pictures = "required"
    """`optional`: dialogues that show no picture are played too; `required`: rejected."""


class SaferSteerSettings(Section):
    """Everything of Stage III that is ours."""

    tutor: TutorConfig
    """Safety Tutor (Eq. 17)."""
    policy: Annotated[str | None, Operational] = None
    """A text file that says what counts as harm, for the tutor; its content counts, not where it lies. Null:
    safer_steer/policies/general.md."""
    answer_format: AnswerFormat = AnswerFormat()
    """System prompt of every conversation and tags of the student's answers, as in SFT; the tutor sees what is said to
    the user. A YAML file (configs/answer_format/) or its content.
    """
    feedback_dynamics: bool = True
    """The tutor writes the next question; off: the static one is asked (ablation, Table 5)."""
    reward: RewardConfig = RewardConfig()
    """Eq. 4, or a function of the user's."""
    tcsr: TcsrConfig = TcsrConfig()
    """Eq. 18 and the return of Eq. 20."""
    credit: Literal["trajectory", "turn"] = "trajectory"
    """`trajectory` (Eq. 20-21): all tokens of a trajectory share A. `turn`, beyond the paper: a turn's tokens have the
    advantage of what follows from that turn.
    """
    turns: TurnLimits
    token_check: Annotated[TokenCheck, Operational] = "strict"
    """Trajectory ids against the chat template: mask it, log, or do not look."""
    attention: Attention = "auto"
    """Of the trainer: padded (torch's sdpa), or packed: varlen (torch's kernels), flash_attn (where installed);
    docs/grpo.md.
    """
    max_unscored_rate: Annotated[float, Field(ge=0, lt=1), Operational] = 0.1
    """Share of a step's trajectories that may lack a score (tutor outage, unusable tutor answer, a rollout that failed)
    before the run stops; one or two are borne, unless they are all or this is 0. Our choice.
    """
    max_token_fault_rate: Annotated[float, Field(ge=0, lt=1), Operational] = 0.1
    """The same for those that `token_check` masks."""
    stall_s: Annotated[float, Field(gt=0), Operational] = 1800.0
    """Seconds without any sign of life (a turn, a verdict, a micro-batch, a row, a byte of a checkpoint) before the run
    is ended: what hangs does not say so. A weight transfer gives none; loading the model has to fit.
    """
    services: Annotated[dict[str, ServiceConfig], Operational] = {}
    """Servers that the run starts, such as a tutor of its own."""
    layout: Annotated[LayoutConfig, Operational] = LayoutConfig()
    """What machines and tutor have, for the checks before a run."""
    data: DataConfig
    base_model: str | None = None
    """The model before SFT: where the ablation `no_bootstrapping` starts from."""

    @model_validator(mode="after")
    def _one_format(self) -> Self:
        tags, wanted = list(self.reward.format.tags), self.answer_format.tags
        if self.reward.format.bonus and tags != wanted:
            raise ValueError(f"reward.format.tags {tags} are not those of answer_format: {wanted}")
        return self

    @model_validator(mode="after")
    def _turns_have_values(self) -> Self:
        if self.credit == "turn" and self.tcsr.rule not in TURN_RULES:
            raise ValueError(
                f"credit: turn needs a value for every turn, tcsr.rule {self.tcsr.rule} gives one per dialogue; "
                f"use {' or '.join(TURN_RULES)}"
            )
        return self
