"""Settings of a reproduction: what each stage gets besides its own config, and cells besides the paper's."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from safer_steer.config import Section

Overrides = list[Annotated[str, Field(pattern=r"^[^=\s]+=")]]  # key=value, as the stage's command line takes it
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.]*$")]
# Cells that GRPO, or SFT before it, trains: those an adaptive tutor tells something about.
Adaptive = Literal["sft", "grpo", "grpo_no_tcsr", "grpo_no_feedback_dynamics", "grpo_no_bootstrapping"]


class Settings(Section):
    """Everything of `configs/reproduce/miniature.yaml`."""

    seeds: Overrides
    warm_up: Overrides
    single_turn: Overrides
    data: Overrides
    sft: Overrides
    grpo: Overrides
    evaluation: Overrides


class Extras(Section):
    """Everything of `configs/reproduce/{sweep,fairer}.yaml`: cells besides the paper's, made from the same seeds."""

    number_of_seeds: Annotated[int, Field(ge=1)]
    """From 0, unless the command line says how many."""
    variants: dict[Name, Overrides] = {}
    """Trainings: the full GRPO cell with these overrides."""
    adaptive_cells: list[Adaptive] = []
    """Evaluated once more, with the overrides `adaptive`."""
    adaptive: Overrides = []


class Size(Section):
    """A size of the student."""

    folder: str
    """Run folder, below the root."""
    base_model: str
    sft: str
    """Config of SFT."""
    grpo: str
    """Config of Stage III."""
    parameters: Annotated[float, Field(gt=0)]
    """Billions, for the forecast."""


class PaperSettings(Section):
    """Everything of `configs/reproduce/paper.yaml`: sizes, what each stage gets besides its config, and baselines."""

    sizes: dict[Name, Size]
    data: Overrides = []
    single_turn: Overrides = []
    sft: Overrides = []
    grpo: Overrides = []
    evaluation: Overrides = []
    baselines: dict[str, dict[str, Any] | None] = {}
    """Row of the paper's tables -> the model section of an evaluation (checkpoint or endpoint, and what is its own:
    answer_format, max_pixels, sampling); null, or neither of the two: not run.
    """

    @field_validator("baselines")
    @classmethod
    def _named(cls, rows: dict[str, dict[str, Any] | None]) -> dict[str, dict[str, Any] | None]:
        return {
            row: one if one and (one.get("checkpoint") or one.get("endpoint")) else None for row, one in rows.items()
        }
