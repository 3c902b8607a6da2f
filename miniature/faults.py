"""Seeded faults of the embedded teacher, so that reliability can be tested over real HTTP.

Every request is hit or spared by a hash of its content and of how often it came, so that a retry may pass and a run
repeats.
"""

import random
from dataclasses import dataclass, field

from safer_steer.dialogue import stable_hash

FAULTS = (
    "rate_limit",  # 429 with Retry-After: 1
    "server_error",  # 503
    "hang",  # an answer that comes after two minutes
    "reset",  # the connection is cut
    "fenced",  # JSON inside a Markdown fence, prose around it
    "torn",  # JSON cut in the middle
    "out_of_range",  # scores of 99
    "content_filter",  # finish_reason content_filter, content null
    "empty",  # content ""
    "reasoning_only",  # content null, reasoning_content filled
)


@dataclass
class FaultPlan:
    """Rates by fault name, each in [0, 1], together at most 1; and the seed."""

    rates: dict[str, float] = field(default_factory=dict)
    seed: int = 0
    _seen: dict[str, int] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str, seed: int) -> "FaultPlan":
        """From "rate_limit=0.1,torn=0.05"; an unknown name or a rate outside [0, 1] is a ValueError that lists the
        names.
        """
        rates = {}
        for item in filter(None, text.split(",")):
            name, _, rate = item.partition("=")
            if name not in FAULTS or not 0 <= float(rate or -1) <= 1:
                raise ValueError(f"fault {item!r}: give NAME=RATE with a rate in [0, 1]; names: {', '.join(FAULTS)}")
            rates[name] = float(rate)
        return cls(rates, seed)

    def draw(self, content: object) -> str | None:
        """The fault that hits this request, or None."""
        if not self.rates:
            return None
        key = stable_hash(content)
        self._seen[key] = self._seen.get(key, 0) + 1
        point = random.Random(stable_hash(self.seed, key, self._seen[key])).random()
        for name, rate in self.rates.items():
            if point < rate:
                return name
            point -= rate
        return None
