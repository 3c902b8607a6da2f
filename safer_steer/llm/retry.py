"""When to call again: which failures pass, and how long to wait before the next try."""

import email.utils
import math
import random
from collections.abc import Mapping
from datetime import UTC, datetime

BASE_DELAY_S = 0.5
MAX_DELAY_S = 30.0
# 4xx that are not the request's own fault: time-outs, load, a gateway that lost its model (421, 424), a tier that is
# full (498), a connection that a proxy closed (499).
PASSING = (408, 409, 421, 424, 425, 429, 498, 499)


def is_retryable(status: int | None) -> bool:
    """Connection failures (None), a 2xx that is no 200, 5xx and the 4xx of `PASSING` pass; the rest does not."""
    return status is None or status < 300 or status in PASSING or status >= 500


def backoff_seconds(attempt: int) -> float:
    """Exponential with jitter: attempt 0 waits up to 0.5 s, doubling up to 30 s."""
    return random.uniform(0.1, 1.0) * min(MAX_DELAY_S, BASE_DELAY_S * 2.0 ** min(attempt, 16))


def retry_after_seconds(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """The wait that a response asks for, in seconds >= 0; None when it names none or one that cannot be read.

    `retry-after-ms` is read first, then `Retry-After` in seconds or as an HTTP date. A date is compared with the
    response's own `Date`, so that clocks that differ do not matter; without one with `now` (default: the clock).
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("retry-after")
    seconds = _number(value)
    if seconds is not None:
        return seconds
    until = _date(value)
    if until is None:
        return None
    return max(0.0, (until - (_date(headers.get("date")) or now or datetime.now(UTC))).total_seconds())


def _number(value: str | None) -> float | None:
    try:
        number = float(value or "")
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _date(value: str | None) -> datetime | None:
    try:
        when = email.utils.parsedate_to_datetime(value or "")
    except (ValueError, OverflowError):  # the latter: a year or a zone that no clock has
        return None
    return when if when.tzinfo else when.replace(tzinfo=UTC)
