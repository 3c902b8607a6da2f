"""How much is sent: calls at once, fewer after a 429 and more again after answers, and requests and tokens per minute.

Both belong to one event loop. Written here because the libraries for it (aiolimiter, pyrate-limiter) can neither
shrink nor correct an estimated number of tokens once the answer tells the true one.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable

Clock = Callable[[], float]
Sleep = Callable[[float], Awaitable[None]]
SHRINK = 0.5  # of the calls at once, after a 429
GROWTH_STEPS = 8  # round trips without a 429 from nothing to the configured number


class AdaptiveLimit:
    """A semaphore whose size follows the endpoint (additive increase, multiplicative decrease); first come first
    served.

    Attributes:
        limit: calls at once now, in [1, most].
        in_use: calls in flight.
    """

    def __init__(self, most: int, clock: Clock = time.monotonic):
        self.most, self.limit, self.in_use = most, float(most), 0
        self._step = max(1.0, most / GROWTH_STEPS)
        self._clock, self._shrunk_at = clock, float("-inf")
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def acquire(self) -> None:
        """Waits for a place."""
        if not self._waiting and self.in_use < int(self.limit):
            self.in_use += 1
            return
        place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if not place.cancelled():  # given and cancelled at the same moment
                self.release()
            elif place in self._waiting:
                self._waiting.remove(place)
            raise

    def release(self) -> None:
        """Gives the place back."""
        self.in_use -= 1
        self._admit()

    def shrink(self, started: float) -> None:
        """After a 429 to a call that started at `started`: half as many calls. Those that were under way together
        count once.
        """
        if started > self._shrunk_at:
            self._shrunk_at = self._clock()
            self.limit = max(1.0, self.limit * SHRINK)

    def grow(self) -> None:
        """After an answer: an eighth of `most` more for every full round of answers."""
        if self.limit < self.most:
            self.limit = min(float(self.most), self.limit + self._step / self.limit)
            self._admit()

    def _admit(self) -> None:
        while self._waiting and self.in_use < int(self.limit):
            place = self._waiting.popleft()
            if not place.cancelled():
                self.in_use += 1
                place.set_result(None)


class Pace:
    """Spreads units evenly: after `n` units nothing starts for n / per_minute minutes."""

    def __init__(self, per_minute: float | None, clock: Clock = time.monotonic):
        self._seconds = 60 / per_minute if per_minute else 0.0  # for one unit
        self._clock, self._free_at = clock, float("-inf")

    def wait_s(self) -> float:
        """Seconds until something may start, 0 or less when it may now."""
        return self._free_at - self._clock()

    def spend(self, units: float) -> None:
        """Counts units that start now; fewer than none gives back what was estimated too high."""
        self._free_at = max(self._free_at, self._clock()) + units * self._seconds


class RateLimit:
    """Requests and tokens per minute; callers pass one at a time, in order."""

    def __init__(
        self,
        requests_per_minute: float | None,
        tokens_per_minute: float | None,
        clock: Clock = time.monotonic,
        sleep: Sleep = asyncio.sleep,
    ):
        self.unlimited = requests_per_minute is None and tokens_per_minute is None
        self._requests, self._tokens = Pace(requests_per_minute, clock), Pace(tokens_per_minute, clock)
        self._sleep, self._line = sleep, asyncio.Lock()

    async def admit(self, tokens: float, ready: Callable[[], Awaitable[None]]) -> None:
        """Returns when a request of about so many tokens may start.

        Args:
            tokens: prompt and answer together, estimated.
            ready: awaited at the head of the line, so that a pause of the endpoint holds the line and does not let
                admitted requests pile up.
        """
        async with self._line:
            while (wait := max(self._requests.wait_s(), self._tokens.wait_s())) > 0:
                await self._sleep(wait)
            await ready()
            self._requests.spend(1)
            self._tokens.spend(tokens)

    def correct(self, estimated: float, used: float) -> None:
        """Puts the true number of tokens in place of the estimated one."""
        self._tokens.spend(used - estimated)
