"""What calls cost: outcome counts, tokens, dollars, latency percentiles; live and for `run.json`."""

from array import array
from collections import Counter
from typing import Any

import numpy as np

from safer_steer.llm.config import EndpointConfig

UNKNOWN = "unknown"


class UsageMeter:
    """Adds up the calls of one role. A cost is a number only when prices and all tokens are known."""

    def __init__(self, role: str, config: EndpointConfig):
        self._role, self._config = role, config
        self.outcomes: Counter[str] = Counter()
        self.retries = self.rate_limited = self.cached = 0
        self.tokens_in = self.tokens_out = self.untold = 0
        self._seconds = array("f")  # of each answered call

    def answered(self, outcome: str, tokens: tuple[int, int] | None, seconds: float) -> None:
        """Counts a call that got an answer; `tokens` of prompt and answer, None when the server did not tell."""
        self.outcomes[outcome] += 1
        self._seconds.append(seconds)
        if tokens is None:
            self.untold += 1
        else:
            self.tokens_in += tokens[0]
            self.tokens_out += tokens[1]

    def failed(self, outcome: str) -> None:
        """Counts a call that ended without an answer."""
        self.outcomes[outcome] += 1

    def retried(self, status: int | None) -> None:
        """Counts another try."""
        self.retries += 1
        self.rate_limited += status == 429

    def summary(self) -> dict[str, Any]:
        """Plain values for `run.json`; latencies in seconds, `usd` a number or "unknown"."""
        numbers: dict[str, Any] = {"calls": self.outcomes.total(), "cached": self.cached, "retries": self.retries}
        numbers |= {"rate_limited": self.rate_limited, "outcomes": dict(self.outcomes)}
        numbers |= {"tokens_in": self.tokens_in, "tokens_out": self.tokens_out}
        if self.untold:
            numbers["calls_without_token_counts"] = self.untold
        for percent in (50, 95, 99) if self._seconds else ():
            numbers[f"latency_p{percent}_s"] = float(f"{np.percentile(self._seconds, percent):.3g}")
        return numbers | {"usd": self._usd()}

    def note(self) -> str:
        """A few words for the progress bar, "" before the first call."""
        counts = [f"{count} {outcome}" for outcome, count in self.outcomes.most_common()]
        counts += [f"{self.cached} cached"] if self.cached else []
        counts += [f"{self.retries} retries"] if self.retries else []
        return f"{self._role}: {', '.join(counts)}" if counts else ""

    def _usd(self) -> float | str:
        if not self.outcomes:
            return 0.0
        cost = None if self.untold else self._config.usd(self.tokens_in, self.tokens_out)
        return UNKNOWN if cost is None else round(cost, 4)
