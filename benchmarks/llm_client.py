"""How fast the LLM client is, against a local server with a fixed latency in a process of its own.

Output: a table of rates and ratios with their targets, and the same as JSON.
    python -m benchmarks.llm_client [--out outputs/benchmarks/llm_client.json] [--scale 1.0] [--litellm FOLDER]

    full pipe    512 calls in flight at 2 s latency, starts spread over it: our rate over 512 / 2 a second
    64, 512      64 in flight at 50 ms, 512 started at once at 2 s: our rate over that of bare aiohttp, of the openai
                 package as it comes, and of litellm's router, if --litellm names a folder of `pip install --target`
    stalled      64 in flight at 50 ms, while one more call is never answered: our rate over that without it
    cached       the same, structured answers stored in a cache on disk: our rate over bare aiohttp's
What is compared runs in turns, and the median of the rounds' ratios counts, so that other work on the machine weighs
on all.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict, dataclass
from functools import partial
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

Call = Callable[[int], Awaitable[None]]
Way = Callable[[str, int], AbstractAsyncContextManager[Call]]  # (base URL, calls in flight) -> how a call is made


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
    against: str
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


async def measure(way: Way, url: str, calls: int, in_flight: int) -> Rate:
    """Makes calls, `in_flight` at once; before that one each to open the connections."""

    async def worker(numbers: Iterator[int]) -> None:
        for number in numbers:
            await call(number)

    async with way(url, in_flight) as call:
        await asyncio.gather(*(call(-1 - number) for number in range(in_flight)))
        numbers, watch = iter(range(calls)), Stopwatch()
        await asyncio.gather(*(worker(numbers) for _ in range(in_flight)))
        return watch.rate(calls)


async def measure_steady(way: Way, url: str, in_flight: int, spread_s: float, seconds: float) -> Rate:
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

    async with way(url, in_flight) as call:
        workers = asyncio.gather(*(worker(number) for number in range(in_flight)))
        await asyncio.sleep(2.5 * spread_s)
        before, watch = finished, Stopwatch()
        await asyncio.sleep(seconds)
        rate, stopping = watch.rate(finished - before), True
        await workers
    return rate


@asynccontextmanager
async def ours(url: str, in_flight: int, *, with_stalled: bool = False) -> AsyncIterator[Call]:
    """Our client as the stages use it; with one more call that is never answered if asked for."""
    client = LLMClient("bench", EndpointConfig(model="bench", base_url=url, concurrency=in_flight + with_stalled))

    async def call(_: int) -> None:
        reply = await client.chat(MESSAGES)
        assert reply.text, reply.detail

    stalled = asyncio.ensure_future(client.chat([{"role": "user", "content": STALL}])) if with_stalled else None
    try:
        yield call
    finally:
        if stalled:
            assert not stalled.done()
            stalled.cancel()
            await asyncio.gather(stalled, return_exceptions=True)
        await client.close()


@asynccontextmanager
async def ours_cached(url: str, in_flight: int) -> AsyncIterator[Call]:
    """Our client with structured answers and a cache on disk; every request is another, so every one is sent."""
    with tempfile.TemporaryDirectory() as folder:
        cache = ResponseCache(Path(folder, "cache.sqlite"))
        client = LLMClient("bench", EndpointConfig(model="bench", base_url=url, concurrency=in_flight), cache)

        async def call(number: int) -> None:
            answer = await client.structured(MESSAGES, Scored, name="scored", seed=number)
            assert answer.value, answer.detail

        try:
            yield call
        finally:
            await client.close()
            cache.close()


@asynccontextmanager
async def bare(url: str, in_flight: int) -> AsyncIterator[Call]:
    """Aiohttp alone: post, read, decode."""
    body = {"model": "bench", "messages": MESSAGES}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=in_flight)) as session:

        async def call(_: int) -> None:
            async with session.post(f"{url}/chat/completions", json=body) as response:
                assert (await response.json())["choices"]

        yield call


@asynccontextmanager
async def plain(url: str, in_flight: int) -> AsyncIterator[Call]:
    """The openai package as it comes."""
    async with openai.AsyncOpenAI(api_key="none", base_url=url, max_retries=0, timeout=60) as client:

        async def call(_: int) -> None:
            completion = await client.chat.completions.create(model="bench", messages=MESSAGES)
            assert completion.choices[0].message.content

        yield call


@asynccontextmanager
async def routed(url: str, in_flight: int) -> AsyncIterator[Call]:
    """Litellm's router with one deployment."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # nothing is fetched
    import litellm

    litellm.suppress_debug_info = True
    litellm.in_memory_llm_clients_cache.flush_cache()  # of another event loop's clients
    where = {"model": "openai/bench", "api_key": "none", "api_base": url}
    router = litellm.Router([{"model_name": "bench", "litellm_params": where}], num_retries=0)

    async def call(_: int) -> None:
        completion = await router.acompletion(model="bench", messages=MESSAGES)
        assert completion.choices[0].message.content

    yield call


WAYS: dict[str, Way] = {
    "ours": ours,
    "bare aiohttp": bare,
    "AsyncOpenAI": plain,
    "litellm's router": routed,
    "one call never answered": partial(ours, with_stalled=True),
    "structured, cache on disk": ours_cached,
}
# what, against what, the least ratio
AT_64 = (
    ("ours", "bare aiohttp", 0.9),
    ("ours", "AsyncOpenAI", None),
    ("ours", "litellm's router", None),
    ("one call never answered", "ours", 0.9),
    ("structured, cache on disk", "bare aiohttp", None),
)
AT_512 = AT_64[:3]


def compare(
    name: str, pairs: tuple[tuple[str, str, float | None], ...], rate: Callable[[str], Rate], rounds: int
) -> list[Result]:
    """Measures ways of calling in turns.

    Args:
        name: of the load.
        pairs: which way is compared with which, and the least ratio.
        rate: measures a way by its name.
        rounds: how often each is measured.
    """
    names = dict.fromkeys(way for one, other, _ in pairs for way in (one, other))
    measured = [{way: rate(way) for way in names} for _ in range(rounds)]
    results = []
    for one, other, target in pairs:
        ratio = statistics.median(rates[one].per_second / rates[other].per_second for rates in measured)
        rates = (_median([rates[way] for rates in measured]) for way in (one, other))
        results.append(Result(name if one == "ours" else f"{name}, {one}", other, *rates, ratio, target))
        print(_line(results[-1]), flush=True)
    return results


def _median(rates: list[Rate]) -> Rate:
    return Rate(statistics.median(r.per_second for r in rates), statistics.median(r.cpu_ms for r in rates))


def _line(result: Result) -> str:
    met = "" if result.target is None else f"{result.target:.2f} {'met' if result.ratio >= result.target else 'MISSED'}"
    one, other = result.ours, result.other
    numbers = f"{one.per_second:8.1f} {one.cpu_ms:8.2f} {other.per_second:8.1f} {other.cpu_ms:8.2f} {result.ratio:7.2f}"
    return f"{result.name:50} {result.against:17} {numbers}  {met}"


def _figure(result: Result) -> Figure:
    ours, other = result.ours.per_second, result.other.per_second
    return Figure(result.name, "calls/s", ours, result.against, other, result.target, ratio=result.ratio)


def run(short: str, long: str, scale: float, rounds: int, litellm: bool) -> list[Result]:
    """All comparisons.

    Args:
        short: base URL of the server with 50 ms latency.
        long: base URL of the server with 2 s latency.
        scale: of the number of calls and of the seconds at 2 s latency.
        rounds: how often each way is measured, at 512 in flight at most three times.
        litellm: whether litellm's router is measured too.
    """
    at_64, at_512 = ([pair for pair in pairs if litellm or "litellm's router" not in pair] for pairs in (AT_64, AT_512))

    def at_short(way: str) -> Rate:
        return asyncio.run(measure(WAYS[way], short, max(64, round(3200 * scale)), 64))

    def at_long(way: str) -> Rate:
        return asyncio.run(measure(WAYS[way], long, max(512, round(2560 * scale)), 512))

    def steady(way: str) -> Rate:
        possible = Rate(512 / LONG_S, 0.0)
        return asyncio.run(measure_steady(ours, long, 512, LONG_S, 10 * scale)) if way == "ours" else possible

    few = min(rounds, 3)
    return [
        *compare("512 in flight at 2 s, steady state", (("ours", "what is possible", 0.9),), steady, few),
        *compare("64 in flight at 50 ms", tuple(at_64), at_short, rounds),
        *compare("512 started at once at 2 s", tuple(at_512), at_long, few),
    ]


def main() -> int:
    """Runs all comparisons; 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks/llm_client.json"))
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of calls")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of each comparison")
    parser.add_argument("--litellm", metavar="FOLDER", help="where pip installed litellm with --target")
    arguments = parser.parse_args()
    if arguments.litellm:
        sys.path.append(arguments.litellm)  # behind the project's own packages
    command = ["python", "-m", "benchmarks.fixed_latency_server", "--port", "{port}", "--latency"]
    services = {str(s): ServiceConfig(serves="bench", command=[*command, str(s)]) for s in (SHORT_S, LONG_S)}
    with tempfile.TemporaryDirectory() as logs, start_services(services, logs) as urls:
        print(f"{'':50} {'against':17} {'ours/s':>8} {'cpu ms':>8} {'other/s':>8} {'cpu ms':>8} {'ratio':>7}  target")
        short, long = urls[str(SHORT_S)], urls[str(LONG_S)]
        results = run(short, long, arguments.scale, arguments.rounds, bool(arguments.litellm))
    print(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}")
    settings = {"scale": arguments.scale, "rounds": arguments.rounds}
    details = [asdict(result) for result in results]
    return write_figures(arguments.out, "llm_client", map(_figure, results), settings=settings, details=details)


if __name__ == "__main__":
    raise SystemExit(main())
