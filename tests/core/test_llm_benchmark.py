"""The client's benchmark measures what it says; how fast it is is for the benchmark to tell."""

import asyncio

import pytest

from benchmarks import llm_client as benchmark
from benchmarks.fixed_latency_server import create_app


def test_every_way_of_calling_makes_its_calls(serve):
    served = []

    async def counted(scope, receive, send):
        if scope["path"].endswith("/chat/completions"):  # not the one question for what is served
            served.append(scope["path"])
        await create_app(0.001)(scope, receive, send)

    url = serve(counted)
    ways = {
        "ours": lambda: asyncio.run(benchmark.ours(url, 40, 8)),
        "stalled": lambda: asyncio.run(benchmark.ours(url, 40, 8, with_stalled=True)),
        "cached": lambda: asyncio.run(benchmark.ours_cached(url, 40, 8)),
        "bare": lambda: asyncio.run(benchmark.bare(url, 40, 8)),
        "threads": lambda: benchmark.threads(url, 40, 8),
    }
    for name, way in ways.items():
        served.clear()
        rate = way()
        assert len(served) == 48 + (name == "stalled"), name  # 8 to open the connections
        assert rate.per_second > 0
        assert rate.cpu_ms > 0
    served.clear()
    rate = asyncio.run(benchmark.ours_steady(url, 8, 0.01, 0.1))
    assert 0 < rate.per_second * 0.1 < len(served)


@pytest.mark.parametrize(("ours", "met"), [(90.0, "0.80 met"), (70.0, "0.80 MISSED")])
def test_a_target_is_met_or_missed(capsys, ours, met):
    other = benchmark.Rate(100.0, 1.0)
    result = benchmark.compare("name", lambda: benchmark.Rate(ours, 1.0), lambda: other, 0.8)
    assert result.ratio == ours / 100
    assert met in capsys.readouterr().out
