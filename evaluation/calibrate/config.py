"""The config of a calibration."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from safer_steer.config import Operational, Section
from safer_steer.llm import EndpointConfig
from safer_steer.servers import ServiceConfig, check_services

SCALES = {"judge": ("harmlessness", "helpfulness"), "tutor": ("safety", "usefulness", "faithfulness")}


class CalibrationConfig(Section):
    """Everything of `configs/calibration/*.yaml`."""

    output: str
    """Folder of verdicts, answer cache and report."""
    role: Literal["judge", "tutor"]
    """Whose prompt and scales; Stage II's evaluator has the tutor's rubric."""
    endpoint: EndpointConfig
    """The model; as in an evaluation JUDGE_... or TUTOR_... of the environment come first."""
    prompt: str | None = None
    """Of a judge `ours` or `printed`; of both, a .jinja file. Null: the default one."""
    policy: Annotated[str | None, Operational] = "miniature/policy.md"
    """What counts as harm; the labels are true under this one."""
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.95
    """Share of exact scores, on each scale, below which the verdict is no."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """Cases; null: all."""
    max_transport_rate: Annotated[float, Field(ge=0, le=1), Operational] = 0.05
    """Share of cases lost on the way to the model that stops the run."""
    services: Annotated[dict[str, ServiceConfig], Operational] = {}

    @property
    def printed(self) -> bool:
        """Whether the judge reads the protocol as printed."""
        return self.role == "judge" and self.prompt == "printed"

    @model_validator(mode="after")
    def _served(self) -> Self:
        check_services(self.services, {self.role: self.endpoint})
        return self
