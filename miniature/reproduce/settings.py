"""Settings of a reproduction: what each stage is told beside its own config, and the variants of a sweep."""

from typing import Annotated

from pydantic import Field

from safer_steer.config import Section

Overrides = list[Annotated[str, Field(pattern=r"^[^=\s]+=")]]  # key=value, as the stage's command line takes it
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.]*$")]


class Settings(Section):
    """Everything of `configs/reproduce/*.yaml`."""

    seeds: Overrides
    warm_up: Overrides
    single_turn: Overrides
    data: Overrides
    sft: Overrides
    grpo: Overrides
    evaluation: Overrides
    variants: dict[Name, Overrides] = {}  # of the full GRPO cell, on seed 0
