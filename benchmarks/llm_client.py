"""How fast the LLM client is, against a local server with a fixed latency in a process of its own.

Output: a table of rates and ratios with their targets, and the same as JSON.
    python -m benchmarks.llm_client [--out outputs/benchmarks/llm_client.json] [--scale 1.0]

    full pipe    512 calls in flight at 2 s latency: our rate over 512 / 2 a second
    bare loop    64 in flight at 50 ms: our rate over that of aiohttp without any client
    stalled      the same, while one more call is never answered: our rate over that without it
    cached       the same, structured answers stored in a cache on disk: our rate over the bare loop's
    threads      64 in flight at 50 ms: our rate over that of 64 threads with a synchronous OpenAI client each
    threads 2 s  512 in flight over those 64 threads, at 2 s
What is compared runs in turns, and the median of the rounds' ratios counts, so that other work on the machine weighs
on both.
"""

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import aiohttp
import openai
from pydantic import BaseModel

from benchmarks.figures import Figure, write_figures
from benchmarks.fixed_latency_server import STALL
from safer_steer.llm import EndpointConfig, LLMClient, ResponseCache
from safer_steer.servers import ServiceConfig, start_services

SHORT_S, LONG_S = 0.05, 2.0  # latencies
MESSAGES = [{"role": "user", "content": "word " * 200}]  # 1 kB
ROUNDS = 5
# comparison -> what is measured, and against what
AGAINST = {
    "full pipe": ("512 in flight at 2 s, steady state", "what is possible"),
    "bare loop": ("64 in flight at 50 ms", "bare aiohttp"),
    "stalled": ("64 in flight, one call never answered", "without that call"),
    "cached": ("64 in flight, structured, cache on disk", "bare aiohttp"),
    "threads": ("64 in flight at 50 ms", "64 threads, synchronous OpenAI client"),
    "threads 2 s": ("512 in flight at 2 s", "64 threads, synchronous OpenAI client"),
}


class Scored(BaseModel):
    """What the server's answers hold."""

    diagnosis: str
    score: int


@dataclass(frozen=True)
class Rate:
    """Calls a second, and milliseconds of this process's processor time a call."""

    per_second: float
    cpu_ms: float


@dataclass(frozen=True)
class Result:
    """One line of the table: medians of both rates, the median of their ratio, and the least it must be (None: shown
    only).
    """

    name: str
    ours: Rate
    other: Rate
    ratio: float
    target: float | None


class Stopwatch:
    """Wall and processor time since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def rate(self, calls: int) -> Rate:
        """The rate of so many calls."""
        return Rate(calls / (time.perf_counter() - self._wall), (time.process_time() - self._cpu) / max(calls, 1) * 1e3)


async def measure(call: Callable[[int], Awaitable[None]], calls: int, in_flight: int) -> Rate:
    """Makes calls, `in_flight` at once; before that one each to open the connections."""

    async def worker(numbers: Iterator[int]) -> None:
        for number in numbers:
            await call(number)

    await asyncio.gather(*(call(-1 - number) for number in range(in_flight)))
    numbers, watch = iter(range(calls)), Stopwatch()
    await asyncio.gather(*(worker(numbers) for _ in range(in_flight)))
    return watch.rate(calls)


async def measure_steady(
    call: Callable[[int], Awaitable[None]], in_flight: int, spread_s: float, seconds: float
) -> Rate:
    """The rate of a pipe that is always full: `in_flight` workers that start evenly over `spread_s`, the latency, are
    counted for `seconds` after each has made a call.
    """
    finished, stopping = 0, False

    async def worker(number: int) -> None:
        nonlocal finished
        await asyncio.sleep(spread_s * number / in_flight)
        while not stopping:
            await call(number)
            finished += 1

    workers = asyncio.gather(*(worker(number) for number in range(in_flight)))
    await asyncio.sleep(2.5 * spread_s)
    before, watch = finished, Stopwatch()
    await asyncio.sleep(seconds)
    rate, stopping = watch.rate(finished - before), True
    await workers
    return rate


async def ours_steady(url: str, in_flight: int, spread_s: float, seconds: float) -> Rate:
    """Our client with a full pipe."""
    client = LLMClient("bench", EndpointConfig(model="bench", base_url=url, concurrency=in_flight))

    async def call(_: int) -> None:
        reply = await client.chat(MESSAGES)
        assert reply.text, reply.detail

    try:
        return await measure_steady(call, in_flight, spread_s, seconds)
    finally:
        await client.close()


async def ours(url: str, calls: int, in_flight: int, *, with_stalled: bool = False) -> Rate:
    """Our client as the stages use it; with one more call that is never answered if asked for."""
    client = LLMClient("bench", EndpointConfig(model="bench", base_url=url, concurrency=in_flight + with_stalled))

    async def call(_: int) -> None:
        reply = await client.chat(MESSAGES)
        assert reply.text, reply.detail

    stalled = asyncio.ensure_future(client.chat([{"role": "user", "content": STALL}])) if with_stalled else None
    try:
        return await measure(call, calls, in_flight)
    finally:
        if stalled:
            assert not stalled.done()
            stalled.cancel()
            await asyncio.gather(stalled, return_exceptions=True)
        await client.close()


async def ours_cached(url: str, calls: int, in_flight: int) -> Rate:
    """Our client with structured answers and a cache on disk; every request is another, so every one is sent."""
    with tempfile.TemporaryDirectory() as folder:
        cache = ResponseCache(Path(folder, "cache.sqlite"))
        client = LLMClient("bench", EndpointConfig(model="bench", base_url=url, concurrency=in_flight), cache)

        async def call(number: int) -> None:
            answer = await client.structured(MESSAGES, Scored, name="scored", seed=number)
            assert answer.value, answer.detail

        try:
            return await measure(call, calls, in_flight)
        finally:
            await client.close()
            cache.close()


async def bare(url: str, calls: int, in_flight: int) -> Rate:
    """Aiohttp alone: post, read, decode."""
    body = {"model": "bench", "messages": MESSAGES}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=in_flight)) as session:

        async def call(_: int) -> None:
            async with session.post(f"{url}/chat/completions", json=body) as response:
                assert (await response.json())["choices"]

        return await measure(call, calls, in_flight)


def threads(url: str, calls: int, in_flight: int) -> Rate:
    """A thread pool whose threads have a synchronous OpenAI client each."""
    clients = [openai.OpenAI(api_key="none", base_url=url, max_retries=0) for _ in range(in_flight)]
    numbers = iter(range(calls))

    def call(client: openai.OpenAI) -> None:
        completion = client.chat.completions.create(model="bench", messages=MESSAGES)
        assert completion.choices[0].message.content

    def worker(client: openai.OpenAI) -> None:
        for _ in numbers:
            call(client)

    with ThreadPoolExecutor(in_flight) as pool:
        list(pool.map(call, clients))
        watch = Stopwatch()
        list(pool.map(worker, clients))
        rate = watch.rate(calls)
    for client in clients:
        client.close()
    return rate


def compare(
    name: str, one: Callable[[], Rate], other: Callable[[], Rate], target: float | None, rounds: int = ROUNDS
) -> Result:
    """Measures two things in turns."""
    pairs = [(one(), other()) for _ in range(rounds)]
    ratio = statistics.median(mine.per_second / theirs.per_second for mine, theirs in pairs)
    result = Result(name, _median([pair[0] for pair in pairs]), _median([pair[1] for pair in pairs]), ratio, target)
    print(_line(result), flush=True)
    return result


def _median(rates: list[Rate]) -> Rate:
    return Rate(statistics.median(r.per_second for r in rates), statistics.median(r.cpu_ms for r in rates))


def _line(result: Result) -> str:
    met = "" if result.target is None else f"{result.target:.2f} {'met' if result.ratio >= result.target else 'MISSED'}"
    one, other = result.ours, result.other
    numbers = f"{one.per_second:8.1f} {one.cpu_ms:8.2f} {other.per_second:8.1f} {other.cpu_ms:8.2f} {result.ratio:7.2f}"
    return f"{result.name:12} {numbers}  {met}"


def _figure(result: Result) -> Figure:
    ours, other = result.ours.per_second, result.other.per_second
    return Figure(
        AGAINST[result.name][0], "calls/s", ours, AGAINST[result.name][1], other, result.target, ratio=result.ratio
    )


def run(short: str, long: str, scale: float, rounds: int) -> list[Result]:
    """All comparisons.

    Args:
        short: base URL of the server with 50 ms latency.
        long: base URL of the server with 2 s latency.
        scale: of the number of calls and of the seconds at 2 s latency.
        rounds: pairs of each comparison.
    """
    many, few = max(64, round(3200 * scale)), max(64, round(1280 * scale))

    def ours_at_short() -> Rate:
        return asyncio.run(ours(short, many, 64))

    def ours_at_long() -> Rate:
        return asyncio.run(ours_steady(long, 512, LONG_S, 10 * scale))

    def bare_at_short() -> Rate:
        return asyncio.run(bare(short, many, 64))

    return [
        compare("full pipe", ours_at_long, lambda: Rate(512 / LONG_S, 0.0), 0.9, min(rounds, 3)),
        compare("bare loop", ours_at_short, bare_at_short, 0.8, rounds),
        compare("stalled", lambda: asyncio.run(ours(short, many, 64, with_stalled=True)), ours_at_short, 0.9, rounds),
        compare("cached", lambda: asyncio.run(ours_cached(short, many, 64)), bare_at_short, None, rounds),
        compare("threads", ours_at_short, lambda: threads(short, few, 64), None, min(rounds, 3)),
        compare("threads 2 s", ours_at_long, lambda: threads(long, 128, 64), None, 1),
    ]


def main() -> int:
    """Runs all comparisons; 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks/llm_client.json"))
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of calls")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="pairs of each comparison")
    arguments = parser.parse_args()
    command = ["python", "-m", "benchmarks.fixed_latency_server", "--port", "{port}", "--latency"]
    services = {str(s): ServiceConfig(serves="bench", command=[*command, str(s)]) for s in (SHORT_S, LONG_S)}
    with tempfile.TemporaryDirectory() as logs, start_services(services, logs) as urls:
        print(f"{'':12} {'ours/s':>8} {'cpu ms':>8} {'other/s':>8} {'cpu ms':>8} {'ratio':>7}  target")
        results = run(urls[str(SHORT_S)], urls[str(LONG_S)], arguments.scale, arguments.rounds)
    print(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}")
    settings = {"scale": arguments.scale, "rounds": arguments.rounds}
    details = [asdict(result) for result in results]
    return write_figures(arguments.out, "llm_client", map(_figure, results), settings=settings, details=details)


if __name__ == "__main__":
    raise SystemExit(main())
