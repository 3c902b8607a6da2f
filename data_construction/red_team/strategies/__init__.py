"""The jailbreak strategies of App. F, as data: one YAML file a strategy, described in general terms.

To add one, write `NAME.yaml` next to this file with `name`, `description` and `rewriting`, and add NAME to `NAMES`.
"""

from pathlib import Path

from data_construction.red_team.data_file import read_data_file
from safer_steer.config import Section

NAMES = (
    "roleplay",
    "educational",
    "fiction",
    "reverse_psychology",
    "authority",
    "continuation",
    "hypothetical",
    "urgency",
)


class Strategy(Section):
    """A framing that an attacker gives a request, and how M2 puts a request into it."""

    name: str
    description: str
    rewriting: str

    def as_data(self) -> dict[str, str]:
        """For a prompt's data block."""
        return self.model_dump()


STRATEGIES: dict[str, Strategy] = {
    name: read_data_file(Path(__file__).with_name(f"{name}.yaml"), Strategy) for name in NAMES
}
