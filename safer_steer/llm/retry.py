"""When to call again: which failures pass, how long to wait, and a cool-down that all calls of a client share."""

import asyncio
import email.utils
import random
import time
from datetime import UTC, datetime

BASE_DELAY_S = 0.5
MAX_DELAY_S = 30.0
MAX_RETRY_AFTER_S = 300.0


def is_retryable(status: int | None) -> bool:
    """Connection failures (None), 408, 409, 429 and 5xx pass; other 4xx do not."""
    return status is None or status in (408, 409, 429) or status >= 500


def retry_after_seconds(header: str | None, now: datetime | None = None) -> float | None:
    """The wait a `Retry-After` header asks for, given in seconds or as an HTTP date; None when absent or unreadable."""
    if not header:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        when = email.utils.parsedate_to_datetime(header)
    except ValueError:
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (when - (now or datetime.now(UTC))).total_seconds())


def backoff_seconds(attempt: int) -> float:
    """Exponential with full jitter: attempt 0 waits up to 0.5 s, doubling up to 30 s."""
    return random.uniform(0.1, 1.0) * min(MAX_DELAY_S, BASE_DELAY_S * 2**attempt)


class CoolDown:
    """After a 429 nobody calls until the asked-for time has passed."""

    def __init__(self, clock=time.monotonic, sleep=asyncio.sleep):
        self._clock, self.sleep, self._until = clock, sleep, 0.0

    def extend(self, seconds: float) -> None:
        """Holds all calls for at least `seconds` from now (at most MAX_RETRY_AFTER_S)."""
        self._until = max(self._until, self._clock() + min(seconds, MAX_RETRY_AFTER_S))

    async def wait(self) -> None:
        """Returns when the cool-down is over."""
        while (left := self._until - self._clock()) > 0:
            await self.sleep(left)
