"""Several endpoints that serve the same model: the least loaded healthy one gets the call.

An endpoint that answers 429 pauses for everybody (shared cool-down). One that fails again and again is set aside, then
tried with a single call; while no other is left it is used all the same, so that a pool never stops by itself.
"""

import asyncio
import time
from collections.abc import Sequence

from safer_steer.llm.limits import Clock, Sleep
from safer_steer.llm.retry import backoff_seconds

FAILURES_TO_SET_ASIDE = 3  # in a row
ASIDE_S, MAX_ASIDE_S = 5.0, 60.0


class Endpoint:
    """One base URL with its load and its health.

    Attributes:
        url: the base URL.
        in_flight: calls under way.
    """

    def __init__(self, url: str):
        self.url, self.in_flight = url, 0
        self.served = self.failures = self.rate_limited = 0  # the last two: in a row
        self.pause_until = self.aside_until = 0.0

    def set_aside(self, now: float) -> bool:
        """Whether others should be preferred: too many failures in a row, and neither time for a trial nor free for
        one.
        """
        return self.failures >= FAILURES_TO_SET_ASIDE and (now < self.aside_until or self.in_flight > 0)


class EndpointPool:
    """The endpoints of one role in one event loop."""

    def __init__(
        self,
        urls: Sequence[str],
        retry_after_cap_s: float,
        clock: Clock = time.monotonic,
        sleep: Sleep = asyncio.sleep,
    ):
        self.endpoints = [Endpoint(url) for url in urls]
        self._cap_s, self._clock, self._sleep = retry_after_cap_s, clock, sleep

    async def take(self, avoid: str | None = None) -> Endpoint:
        """The endpoint for one call, counted as in flight; waits while all of them pause.

        Args:
            avoid: base URL that failed this call before; another one is preferred.
        """
        await self.ready()
        now = self._clock()
        open_ones = [endpoint for endpoint in self.endpoints if endpoint.pause_until <= now]
        endpoint = min(
            open_ones or self.endpoints,
            key=lambda item: (item.set_aside(now), item.url == avoid, item.in_flight, item.served),
        )
        endpoint.in_flight += 1
        endpoint.served += 1
        return endpoint

    async def ready(self) -> None:
        """Returns when an endpoint does not pause."""
        while (wait := min(endpoint.pause_until for endpoint in self.endpoints) - self._clock()) > 0:
            await self._sleep(wait)

    def give_back(self, endpoint: Endpoint) -> None:
        """Ends a call."""
        endpoint.in_flight -= 1

    def answered(self, endpoint: Endpoint) -> None:
        """The endpoint is well."""
        endpoint.failures = endpoint.rate_limited = 0

    def rate_limited(self, endpoint: Endpoint, retry_after: float | None) -> None:
        """Nobody calls the endpoint for the time it asks for, at most `retry_after_cap_s`; for a growing one when it
        names none.
        """
        now = self._clock()
        wait = retry_after or backoff_seconds(endpoint.rate_limited)
        if now >= endpoint.pause_until:  # calls that were under way together count once
            endpoint.rate_limited += 1
        endpoint.pause_until = max(endpoint.pause_until, now + min(wait, self._cap_s))

    def failed(self, endpoint: Endpoint) -> None:
        """Sets the endpoint aside after the third failure in a row, for longer each time."""
        now = self._clock()
        if endpoint.failures >= FAILURES_TO_SET_ASIDE and now < endpoint.aside_until:
            return  # calls that were under way when it was set aside
        endpoint.failures += 1
        if endpoint.failures >= FAILURES_TO_SET_ASIDE:
            steps = min(endpoint.failures - FAILURES_TO_SET_ASIDE, 16)
            endpoint.aside_until = now + min(MAX_ASIDE_S, ASIDE_S * 2**steps)
