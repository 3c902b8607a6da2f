"""The `safer_steer:` section of a Stage III config: tutor, rewards, turns, limits, services, data. Engine-free."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from safer_steer.config import Section
from safer_steer.llm import EndpointConfig
from safer_steer.servers import ServiceConfig
from safer_steer_verl.utils.tcsr import TcsrConfig
from safer_steer_verl.utils.turn_reward import RewardWeights

TokenCheck = Literal["strict", "warn", "off"]


class TurnLimits(Section):
    """Length of a trajectory's answers, in tokens."""

    max_tokens: Annotated[int, Field(ge=1)]  # of one answer; longer ones are cut there
    min_tokens: Annotated[int, Field(ge=1)] = (
        16  # room a turn needs; with less left the trajectory ends as `context_full`
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_tokens > self.max_tokens:
            raise ValueError(f"min_tokens {self.min_tokens} is above max_tokens {self.max_tokens}")
        return self


class DataConfig(Section):
    """Where the prompts come from."""

    source: str  # steer_rl.jsonl: Dialogue rows; picture paths are relative to its folder
    min_pixels: Annotated[int, Field(ge=784)] = 28 * 28
    max_pixels: Annotated[int, Field(ge=784)] = 1280 * 28 * 28


class SaferSteerSettings(Section):
    """Everything of Stage III that is ours."""

    tutor: EndpointConfig  # Safety Tutor (Eq. 17)
    feedback_dynamics: bool = (
        True  # the tutor writes the next question; off: the static one is asked (ablation, Table 5)
    )
    reward: RewardWeights = RewardWeights()  # Eq. 4
    tcsr: TcsrConfig = TcsrConfig()  # Eq. 18-19
    turns: TurnLimits
    token_check: TokenCheck = "strict"  # trajectory ids against the chat template: raise, log, or do not look
    # Share of a step's trajectories that may lack a score (tutor outage, unusable tutor answer) before the run stops.
    max_unscored_rate: Annotated[float, Field(ge=0, lt=1)] = 0.1
    services: dict[str, ServiceConfig] = {}
    data: DataConfig
