"""Limits and endpoint health by a clock of the test's own: nothing here waits."""

import asyncio
import functools
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from safer_steer.llm import traffic as traffic_module
from safer_steer.llm.endpoints import FAILURES_TO_SET_ASIDE, EndpointPool
from safer_steer.llm.limits import AdaptiveLimit, RateLimit
from safer_steer.llm.retry import backoff_seconds, is_retryable, retry_after_seconds

MESSAGES = [{"role": "user", "content": "Hi"}]


def test_retry_after_in_seconds_milliseconds_and_as_a_date():
    assert retry_after_seconds({"retry-after": "75"}) == 75
    assert retry_after_seconds({"retry-after-ms": "250", "retry-after": "1"}) == 0.25
    date = {"retry-after": "Wed, 25 Nov 2026 12:01:30 GMT"}
    assert retry_after_seconds(date, datetime(2026, 11, 25, 12, 0, 0, tzinfo=UTC)) == 90
    assert retry_after_seconds(date, datetime(2026, 11, 25, 13, 0, 0, tzinfo=UTC)) == 0
    # The server's own clock counts, not ours.
    assert retry_after_seconds(date | {"date": "Wed, 25 Nov 2026 12:01:00 GMT"}) == 30
    no_dates = "Mon, 01 Jan 99999999999 00:00:00 GMT", "Mon, 01 Jan 2024 00:00:00 +99999999999999"
    for unusable in ("", "soon", "nan", "inf", "-1", *no_dates):
        assert retry_after_seconds({"retry-after": unusable}) is None
    assert retry_after_seconds({}) is None


def test_what_passes_and_how_long_to_wait():
    assert [is_retryable(status) for status in (None, 202, 408, 409, 424, 429, 499, 500, 503)] == [True] * 9
    assert [is_retryable(status) for status in (307, 400, 401, 403, 404, 413, 422)] == [False] * 7
    assert all(0 < backoff_seconds(attempt) <= 30 for attempt in (0, 1, 5, 50, 5000))


@pytest.mark.parametrize(("header", "cap", "waited"), [("75", 300, 75), ("a date", 300, 75), ("3600", 300, 300)])
def test_all_workers_wait_as_long_as_a_429_asks_up_to_the_cap(ask, clock, monkeypatch, header, cap, waited):
    pool = functools.partial(EndpointPool, clock=clock, sleep=clock.sleep)
    monkeypatch.setattr(traffic_module, "EndpointPool", pool)
    times = []

    def note_time(_):
        times.append(clock.now)
        date = format_datetime(datetime.now(UTC) + timedelta(seconds=waited), usegmt=True)
        limited = (429, "slow", {"retry-after": date if header == "a date" else header})
        return limited if len(times) == 1 else "Hello"

    async def eight(client):
        return await asyncio.gather(*(client.chat(MESSAGES) for _ in range(8)))

    replies, client, _ = ask([note_time], eight, retry_after_cap_s=cap, concurrency=1)
    assert [reply.text for reply in replies] == ["Hello"] * 8
    assert client.stats()["retries"] == 1
    # One call met the limit; neither it nor the seven others came before the time was over.
    assert times[0] == 1000
    # Dates are whole seconds, and the server's own Date is as old as its last look at the clock.
    slack = 10 if header == "a date" else 0
    assert all(moment >= 1000 + waited - slack for moment in times[1:])
    assert clock.now <= 1000 + waited + slack


def test_calls_at_once_halve_once_for_calls_under_way_together_and_grow_back(clock):
    limit = AdaptiveLimit(64, clock)
    clock.now += 1
    for _ in range(64):
        limit.shrink(started=clock.now)
    assert limit.limit == 32
    clock.now += 1
    limit.shrink(started=clock.now)
    assert limit.limit == 16
    clock.now += 1
    answers = 0
    while limit.limit < 64:
        limit.grow()
        answers += 1
    assert 200 < answers < 350  # an eighth of 64 for every full round: 6 rounds of 16 to 56 answers
    for _ in range(100):
        clock.now += 1
        limit.shrink(started=clock.now)
    assert limit.limit == 1


def test_no_more_calls_at_once_than_the_limit_and_none_is_lost(clock):
    limit = AdaptiveLimit(4, clock)
    order, most = [], 0

    async def call(number):
        nonlocal most
        await limit.acquire()
        most = max(most, limit.in_use)
        try:
            order.append(number)
            await asyncio.sleep(0)
        finally:
            limit.release()

    async def main():
        calls = [asyncio.ensure_future(call(number)) for number in range(40)]
        await asyncio.sleep(0)
        for number in (5, 6, 39):
            calls[number].cancel()  # while they wait
        await asyncio.sleep(0)
        calls[8].cancel()  # perhaps at the moment it is let in
        await asyncio.gather(*calls, return_exceptions=True)

    asyncio.run(main())
    assert most == 4
    assert limit.in_use == 0
    assert set(range(40)) - set(order) <= {5, 6, 8, 39}
    assert order == sorted(order)


def test_a_pause_of_the_endpoint_holds_the_line(clock):
    pool = EndpointPool(["a"], 300, clock, clock.sleep)
    rates = RateLimit(60, None, clock, clock.sleep)
    pool.rate_limited(pool.endpoints[0], 75)
    times = []

    async def one():
        await rates.admit(0, pool.ready)
        times.append(clock.now)

    async def main():
        await asyncio.gather(*(one() for _ in range(3)))

    asyncio.run(main())
    assert times == pytest.approx([1075, 1076, 1077])  # spread, not all at once when the pause ends


def test_an_endpoint_that_fails_is_set_aside_tried_with_one_call_and_taken_back(clock):
    pool = EndpointPool(["a", "b"], 300, clock, clock.sleep)
    a, b = pool.endpoints
    for _ in range(FAILURES_TO_SET_ASIDE + 40):  # calls that were under way together do not lengthen it
        pool.failed(a)
    assert a.aside_until == clock.now + 5

    def take(count):
        async def main():
            return [await pool.take() for _ in range(count)]

        return asyncio.run(main())

    assert take(3) == [b, b, b]
    clock.now += 6
    assert take(3) == [a, b, b]  # a single trial
    pool.give_back(a)
    pool.failed(a)
    assert a.aside_until == clock.now + 10
    clock.now += 11
    assert take(1) == [a]
    pool.give_back(a)
    pool.answered(a)
    assert take(3) == [a, a, a]  # well again, and less loaded than b


def test_a_pool_never_stops_by_itself(clock):
    pool = EndpointPool(["a", "b"], 300, clock, clock.sleep)
    for endpoint in pool.endpoints:
        for _ in range(5):
            pool.failed(endpoint)

    async def take(avoid=None):
        return (await pool.take(avoid)).url

    assert {asyncio.run(take()), asyncio.run(take())} == {"a", "b"}
    assert not clock.slept
    # While one pauses the other is used, even one that should be avoided; while both do, the earlier one is awaited.
    pool.rate_limited(pool.endpoints[0], 30)
    assert asyncio.run(take(avoid="b")) == "b"
    pool.rate_limited(pool.endpoints[1], 20)
    assert asyncio.run(take()) == "b"
    assert clock.slept == [20]


def test_without_retry_after_pauses_grow(clock):
    pool = EndpointPool(["a"], 300, clock, clock.sleep)
    endpoint = pool.endpoints[0]
    for _ in range(64):  # under way together
        pool.rate_limited(endpoint, None)
    assert endpoint.rate_limited == 1
    for _ in range(10):
        clock.now = endpoint.pause_until
        pool.rate_limited(endpoint, None)
    assert 3 <= endpoint.pause_until - clock.now <= 30
