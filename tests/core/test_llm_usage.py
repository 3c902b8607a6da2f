"""What calls cost: dollars only when they are known, a cache that many share."""

import asyncio
import subprocess
import sys

import pytest

from data_construction.stats.tables import change_table
from evaluation.report.requests import requests_table
from safer_steer.errors import UserError
from safer_steer.llm import EndpointConfig, LLMClient, ResponseCache
from safer_steer.llm.usage import UsageMeter
from safer_steer.runs import Run

PRICED = EndpointConfig(model="m", base_url="http://127.0.0.1:1/v1", price_in=2.0, price_out=8.0)


def test_a_cost_is_a_number_only_when_prices_and_tokens_are_known():
    def usd(config, *calls):
        meter = UsageMeter("judge", config)
        for tokens in calls:
            meter.answered("ok", tokens, 1.0)
        return meter.summary()["usd"]

    unpriced = PRICED.model_copy(update={"price_out": None})
    assert usd(PRICED, (1_000_000, 500_000)) == 6.0
    assert usd(PRICED) == usd(unpriced) == 0.0  # nothing was called
    assert usd(unpriced, (1_000_000, 500_000)) == "unknown"
    assert usd(PRICED, (10, 10), None) == "unknown"


def test_stats_tell_calls_tokens_latencies_and_cost(ask):
    async def three(client):
        return [await client.chat([{"role": "user", "content": "Hi"}]) for _ in range(3)]

    answers = ["Hello", (503, "busy"), "Hello", (400, "no")]
    _, client, _ = ask(answers, three, price_in=1000.0, price_out=1000.0)
    stats = client.stats()
    assert stats["outcomes"] == {"ok": 2, "bad_request": 1}
    assert (stats["calls"], stats["retries"], stats["tokens_in"], stats["tokens_out"]) == (3, 1, 10, 6)
    assert stats["usd"] == 0.016
    assert 0 < stats["latency_p50_s"] <= stats["latency_p95_s"] <= stats["latency_p99_s"]


def test_what_was_not_sent_as_configured_is_said_in_the_closing_line_and_adds_up(tmp_path, capsys):
    refused = {"temperature": "refused by the endpoint, left out"}
    with Run.open(tmp_path / "run", PRICED, stage="judge") as run:
        run.add_usage({"judge": {"calls": 1, "changed": refused}})
        run.add_usage({"judge": {"calls": 2, "changed": {"seed": "left out by the config"}}})
        run.finish({"turns": 3})
    told = "judge: temperature refused by the endpoint, left out; judge: seed left out by the config; "
    assert f"3 turns; {told}" in capsys.readouterr().out
    assert run.record["usage"]["judge"] == {"calls": 3, "changed": refused | {"seed": "left out by the config"}}
    (found,) = [requests_table({"ours": [tmp_path / "run" / "run.json"]})]
    assert found.rows[0] == ["ours", "judge", "temperature", "refused by the endpoint, left out"]
    assert "| judge | seed | left out by the config |" in change_table(run.record["usage"])


WRITER = """
import sys
from safer_steer.llm import ResponseCache
cache = ResponseCache(sys.argv[1])
for number in range(100):
    cache.put(f"{sys.argv[2]}-{number}", "answer")
    cache.put("shared", sys.argv[2])
"""


def test_several_processes_share_a_cache(tmp_path):
    path = tmp_path / "new" / "cache.sqlite"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(number)]) for number in range(3)]
    assert [writer.wait(120) for writer in writers] == [0] * 3
    cache = ResponseCache(path)
    assert all(cache.get(f"{writer}-{number}") == "answer" for writer in range(3) for number in range(100))
    assert cache.get("shared") in "012"
    cache.close()


def test_the_key_is_everything_that_determines_the_answer(monkeypatch):
    requests = []
    monkeypatch.setattr(ResponseCache, "key", staticmethod(lambda request: requests.append(request) or "key"))

    class Everything:
        key = staticmethod(ResponseCache.key)

        def get(self, key):
            return "Hello"

    async def keys(seed=1, **config):
        client = LLMClient("judge", EndpointConfig(**({"model": "m", "base_url": "http://127.0.0.1:1/v1"} | config)))
        client.cache = Everything()
        await client.chat([{"role": "user", "content": "Hi"}], seed=seed)
        return requests[-1]

    first = asyncio.run(keys(temperature=0.5))
    assert first == asyncio.run(keys(temperature=0.5, base_url="http://127.0.0.1:2/v1", timeout_s=5, price_in=1.0))
    changes = {"model": "n"}, {"temperature": 0.4}, {"top_p": 0.5}, {"max_tokens": 5}, {"extra_body": {"top_k": 1}}
    for change in changes:
        assert asyncio.run(keys(**({"temperature": 0.5} | change))) != first
    assert asyncio.run(keys(temperature=0.5, seed=2)) != first


def test_a_broken_cache_file_is_an_error_a_user_can_mend(tmp_path):
    path = tmp_path / "cache.sqlite"
    path.write_bytes(b"this is no database" * 100)
    with pytest.raises(UserError, match="remove the file"):
        ResponseCache(path)
