"""Escalation techniques of the planner (M3), as data: one YAML file a technique, and pools that give turn ranges.

Pool `paper`: the four that the paper names, over 2-10 turns. Pool `code`: the released code's wider pool with its turn
ranges. To add a technique, write `NAME.yaml` next to this file with `name`, `source`, `description` and `course`, and
add its line to a pool.
"""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from data_construction.red_team.data_file import read_data_file
from safer_steer.config import Section

# pool -> technique -> fewest and most user turns
RANGES: dict[str, dict[str, tuple[int, int]]] = {
    "paper": {
        "yes_laddering": (2, 10),
        "sunk_cost_anchor": (2, 10),
        "gradual_escalation": (2, 10),
        "hypothetical_escalation": (2, 10),
    },
    "code": {
        "roleplay_injection": (1, 2),
        "authority_override": (1, 2),
        "continuation_exploit": (2, 2),
        "reverse_psychology": (2, 2),
        "educational_framing": (2, 3),
        "fiction_writer": (2, 3),
        "yes_laddering": (3, 4),
        "sunk_cost_anchor": (3, 4),
        "hypothetical_escalation": (4, 5),
        "confused_expert": (3, 5),
        "rapport_building": (5, 6),
        "gradual_reframing": (4, 6),
        "incremental_extraction": (5, 6),
        "persistence": (5, 6),
    },
}


class Technique(Section):
    """One way to escalate: its `course` from the first turn to the last, over `min_turns` to `max_turns` user turns."""

    name: str
    source: str
    description: str
    course: Annotated[list[str], Field(min_length=2)]
    min_turns: int = 2
    max_turns: int = 10

    def as_data(self) -> dict[str, str | list[str]]:
        """For a prompt's data block."""
        return {"name": self.name, "description": self.description, "course": self.course}


def _pool(ranges: dict[str, tuple[int, int]]) -> dict[str, Technique]:
    pool = {}
    for name, (low, high) in ranges.items():
        technique = read_data_file(Path(__file__).with_name(f"{name}.yaml"), Technique)
        pool[name] = technique.model_copy(update={"min_turns": low, "max_turns": high})
    return pool


POOLS: dict[str, dict[str, Technique]] = {name: _pool(ranges) for name, ranges in RANGES.items()}
