"""What calls cost: outcome counts, tokens, dollars, latency percentiles."""

from collections import Counter
from typing import Any

import numpy as np

from safer_steer.llm.config import EndpointConfig


class UsageMeter:
    """Adds up the calls of one role."""

    def __init__(self, config: EndpointConfig):
        self._config = config
        self.outcomes: Counter[str] = Counter()
        self.retries = self.cached = self.tokens_in = self.tokens_out = 0
        self._latencies: list[float] = []

    def add(self, outcome: str, tokens_in: int, tokens_out: int, seconds: float) -> None:
        """Counts one finished call."""
        self.outcomes[outcome] += 1
        self.tokens_in += tokens_in
        self.tokens_out += tokens_out
        self._latencies.append(seconds)

    def summary(self) -> dict[str, Any]:
        """Plain numbers for `run.json`; latencies in seconds, cost in USD."""
        cost = (self.tokens_in * self._config.price_in + self.tokens_out * self._config.price_out) / 1e6
        numbers = {"calls": sum(self.outcomes.values()), "cached": self.cached, "retries": self.retries}
        numbers |= {"outcomes": dict(self.outcomes), "tokens_in": self.tokens_in, "tokens_out": self.tokens_out}
        if self._latencies:
            p50, p95 = np.percentile(self._latencies, [50, 95])
            numbers |= {"latency_p50_s": round(float(p50), 3), "latency_p95_s": round(float(p95), 3)}
        return numbers | {"usd": round(cost, 4)}
