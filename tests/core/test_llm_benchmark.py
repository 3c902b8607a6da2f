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
    for name in set(benchmark.WAYS) - {"litellm's router"}:
        served.clear()
        rate = asyncio.run(benchmark.measure(benchmark.WAYS[name], url, 40, 8))
        assert len(served) == 48 + (name == "one call never answered"), name  # 8 to open the connections
        assert rate.per_second > 0
        assert rate.cpu_ms > 0
    served.clear()
    rate = asyncio.run(benchmark.measure_steady(benchmark.ours, url, 8, 0.01, 0.1))
    assert 0 < rate.per_second * 0.1 < len(served)


@pytest.mark.parametrize(("ours", "met"), [(90.0, "0.80 met"), (70.0, "0.80 MISSED")])
def test_a_target_is_met_or_missed(capsys, ours, met):
    rates = {"ours": ours, "theirs": 100.0}
    [result] = benchmark.compare("name", [("ours", "theirs", 0.8)], lambda way: benchmark.Rate(rates[way], 1.0), 2)
    assert result.ratio == ours / 100
    assert met in capsys.readouterr().out
