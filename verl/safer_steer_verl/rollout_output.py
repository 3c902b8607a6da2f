"""What one trajectory hands to verl: its growing ids with mask and log-probs, and verl's output with turn rewards."""

from dataclasses import dataclass, field
from typing import Any

from verl.experimental.agent_loop.agent_loop import AgentLoopOutput

from safer_steer_verl.utils.advantage import ZERO


@dataclass
class Tokens:
    """The growing ids of a trajectory; `mask` and `logps` cover the response part only.

    `turn_ends` holds, for every assistant turn, the response position of its last generated token; of the end token
    that stands for it (mask 0) when the answer has no token.
    """

    ids: list[int]
    prompt_length: int
    mask: list[int] = field(default_factory=list)
    logps: list[float] = field(default_factory=list)
    turn_ends: list[int] = field(default_factory=list)

    def close_turn(self, end_id: int) -> None:
        """Appends the end token that a cut answer lacks, with mask 0."""
        self.ids, self.mask, self.logps = [*self.ids, end_id], [*self.mask, 0], [*self.logps, 0.0]


class TrajectoryOutput(AgentLoopOutput):
    """verl's output of an agent loop that can carry a reward for every turn (`credit: turn`)."""

    turn_rewards: list[tuple[int, float]] = []
    """(response position, reward) of every turn; empty: the whole `reward_score` stands on the last token."""

    def as_dict(self) -> dict[str, Any]:
        """Verl's fields; `rm_scores` holds the turn rewards where there are any."""
        output = super().as_dict()
        output.pop("turn_rewards", None)
        if self.turn_rewards:
            output["rm_scores"].zero_()
            for position, reward in self.turn_rewards:
                output["rm_scores"][position] += reward or ZERO
        return output
