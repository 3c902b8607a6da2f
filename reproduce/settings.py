"""Settings of a reproduction: what each stage gets besides its own config, and how many seeds there are."""

from typing import Annotated, Any

from pydantic import Field, field_validator

from reproduce.cells import CELLS
from safer_steer.config import Section

Overrides = list[Annotated[str, Field(pattern=r"^[^=\s]+=")]]  # key=value, as the stage's command line takes it
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.]*$")]


class Phase(Section):
    """The real runs of the phase diagram: a world of its own for each risk and length, all from the one Base."""

    risks: list[Annotated[float, Field(ge=0, le=1)]]
    """How probable it is that a flap is marked: `marked_share` of the world. In the dialogues that are kept more are,
    since a script has to make the target leak; the page shows the share counted there.
    """
    turns: list[Annotated[int, Field(ge=2)]]
    """Most user turns of a dialogue."""
    number_of_seeds: Annotated[int, Field(ge=1)]
    """Of each point, from 0."""
    seeds: Overrides
    """Besides those of every seed."""


class Settings(Section):
    """Everything of `configs/reproduce/miniature.yaml`."""

    number_of_seeds: Annotated[int, Field(ge=1)]
    """From 0, unless the command line says how many."""
    at_most: dict[Name, Annotated[int, Field(ge=1)]]
    """Cell -> number of seeds, for cells that need fewer."""
    seeds: Overrides
    warm_up: Overrides
    single_turn: Overrides
    data: Overrides
    sft: Overrides
    grpo: Overrides
    evaluation: Overrides
    adaptive: Overrides
    phase: Phase

    @field_validator("at_most")
    @classmethod
    def _known(cls, found: dict[str, int]) -> dict[str, int]:
        if unknown := [name for name in found if name not in CELLS]:
            raise ValueError(f"no cell(s) {', '.join(unknown)}; choose from {', '.join(CELLS)}")
        return found


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
