"""Several endpoints, limits and live counts over real HTTP."""

import asyncio
import functools
from contextlib import nullcontext

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from http_doubles import Script
from safer_steer.config import load_config
from safer_steer.errors import UserError
from safer_steer.llm import EndpointConfig, LLMClient
from safer_steer.llm import endpoints as endpoints_module
from safer_steer.llm import traffic as traffic_module
from safer_steer.llm.config import require_keys
from safer_steer.llm.limits import RateLimit
from safer_steer.servers import with_service_urls

MESSAGES = [{"role": "user", "content": "Hi"}]
DEAD = "http://127.0.0.1:9/v1"


def run(client, work):
    async def main():
        try:
            return await work(client)
        finally:
            await client.close()

    return asyncio.run(main())


async def one_by_one(client, count):
    return [(await client.chat(MESSAGES)).text for _ in range(count)]


@pytest.mark.usefixtures("quick_retries")
def test_a_dead_endpoint_costs_no_row(serve):
    alive = Script("Hello")
    client = LLMClient("judge", EndpointConfig(model="m", base_url=[DEAD, serve(alive.app)], max_retries=1))
    texts = run(client, lambda client: one_by_one(client, 20))
    assert texts == ["Hello"] * 20
    assert client.stats()["retries"] == 3  # then it is set aside
    assert len(alive.requests) == 20


@pytest.mark.usefixtures("quick_retries")
def test_an_endpoint_that_refuses_everybody_costs_no_row(serve):
    locked, alive = Script((403, "not yours")), Script("Hello")
    urls = [serve(locked.app), serve(alive.app)]
    client = LLMClient("judge", EndpointConfig(model="m", base_url=urls))
    assert run(client, lambda client: one_by_one(client, 20)) == ["Hello"] * 20
    assert len(locked.requests) == 3


@pytest.mark.usefixtures("quick_retries")
def test_an_endpoint_that_is_back_is_used_again(serve, monkeypatch):
    monkeypatch.setattr(endpoints_module, "ASIDE_S", 3600)
    flaky, steady = Script(*[(500, "starting")] * 3, "A"), Script("B")
    client = LLMClient("judge", EndpointConfig(model="m", base_url=[serve(flaky.app), serve(steady.app)]))

    async def work(client):
        first = await one_by_one(client, 10)
        for endpoint in next(iter(client._loops.values())).pool.endpoints:
            endpoint.aside_until = 0.0  # the hour is over
        return first, await one_by_one(client, 10)

    first, second = run(client, work)
    assert first == ["B"] * 10
    assert second.count("A") >= 5


def test_a_slow_endpoint_gets_fewer_calls(serve):
    released = asyncio.Event()

    async def slow(_):
        await released.wait()
        return "slow"

    def fast(_):
        if len(quick.requests) == 20:
            released.set()
        return "fast"

    sluggish, quick = Script(slow), Script(fast)
    app = FastAPI()  # both behind one server: an event belongs to one event loop
    app.mount("/slow", sluggish.app)
    app.mount("/fast", quick.app)
    base = serve(app).removesuffix("/v1")
    urls = [f"{base}/slow/v1", f"{base}/fast/v1"]
    client = LLMClient("judge", EndpointConfig(model="m", base_url=urls, concurrency=4))

    async def work(client):
        replies = await asyncio.gather(*(client.chat(MESSAGES) for _ in range(22)))
        return [reply.text for reply in replies]

    texts = run(client, work)
    assert texts.count("slow") == len(sluggish.requests) <= 3
    assert texts.count("fast") == len(quick.requests) >= 19


@pytest.mark.usefixtures("quick_retries")
def test_never_more_calls_at_once_than_configured_and_fewer_after_429s(serve):
    app, most, now, full = FastAPI(), [0], [0], asyncio.Event()

    @app.post("/v1/chat/completions")
    async def answer(request: Request):
        now[0] += 1
        most[0] = max(most[0], now[0])
        crowded = now[0] > 8
        if crowded:
            full.set()
        await full.wait()
        await asyncio.sleep(0.005)
        now[0] -= 1
        if crowded:
            return JSONResponse({"error": {"message": "slow"}}, status_code=429, headers={"retry-after": "0.01"})
        return {"choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}]}

    client = LLMClient("judge", EndpointConfig(model="m", base_url=serve(app), concurrency=32, max_retries=0))
    least = [32.0]

    async def work(client):
        async def call():
            reply = await client.chat(MESSAGES)
            least[0] = min(least[0], next(iter(client._loops.values())).slots.limit)
            return reply.text

        return await asyncio.gather(*(call() for _ in range(300)))

    assert run(client, work) == ["Hello"] * 300
    assert 8 < most[0] <= 32
    assert least[0] < 17  # half of them, and what the first answer adds
    assert client.stats()["rate_limited"] < 300


def test_requests_and_tokens_a_minute_are_kept(serve, clock, monkeypatch):
    rates = functools.partial(RateLimit, clock=clock, sleep=clock.sleep)
    monkeypatch.setattr(traffic_module, "RateLimit", rates)

    def seconds(calls, **limits):
        server = Script("Hello")
        client = LLMClient("judge", EndpointConfig(model="m", base_url=serve(server.app), concurrency=1, **limits))
        began = clock.now
        run(client, lambda client: one_by_one(client, calls))
        assert len(server.requests) == calls
        return clock.now - began

    assert seconds(21, requests_per_minute=60) == pytest.approx(20)
    # 8 tokens a call in truth; the first estimate is a quarter of the letters and is put right by its answer.
    assert seconds(21, tokens_per_minute=480) == pytest.approx(20)
    assert seconds(21, requests_per_minute=60, tokens_per_minute=240) == pytest.approx(40)
    assert seconds(2, tokens_per_minute=480, max_tokens=4000) == pytest.approx(1)


def test_check_asks_every_endpoint_and_takes_one_that_cannot_list_its_models(serve):
    lists_nothing, empty = FastAPI(), FastAPI()

    @lists_nothing.post("/v1/chat/completions")
    async def answer(request: Request):
        return JSONResponse({"error": {"message": "messages is empty"}}, status_code=400)

    client = LLMClient("judge", EndpointConfig(model="m", base_url=[serve(lists_nothing), serve(Script("").app)]))
    run(client, lambda client: client.check())
    with pytest.raises(UserError, match=r"404 Not Found.*correct base_url"):
        run(LLMClient("judge", EndpointConfig(model="m", base_url=serve(empty))), lambda client: client.check())
    other = LLMClient("judge", EndpointConfig(model="m", base_url=[serve(Script("").app), DEAD]))
    with pytest.raises(UserError, match=f"no model server answers at {DEAD}"):
        run(other, lambda client: client.check())
    locked = FastAPI()

    @locked.get("/v1/models")
    async def models():
        return JSONResponse({"error": {"message": "no key"}}, status_code=401)

    with pytest.raises(UserError, match="set JUDGE_API_KEY"):
        run(LLMClient("judge", EndpointConfig(model="m", base_url=serve(locked))), lambda client: client.check())


def test_services_may_be_several_endpoints_of_one_role():
    urls = {"a": "http://127.0.0.1:1/v1", "b": "http://127.0.0.1:2/v1"}
    endpoint = EndpointConfig(model="m", base_url=["service:a", "http://127.0.0.1:3/v1", "service:b"])
    found = with_service_urls(endpoint, urls).urls()
    assert found == ["http://127.0.0.1:1/v1", "http://127.0.0.1:3/v1", "http://127.0.0.1:2/v1"]


def test_a_config_error_hides_the_credentials_of_an_address(tmp_path):
    path = tmp_path / "endpoint.yaml"
    for url in ("https://me:canary@host/v1", "https://host/v1?key=canary"):
        path.write_text(f"model: m\nbase_url: {url}\n")
        with pytest.raises(UserError, match="keys belong into the environment") as error:
            load_config(EndpointConfig, path)
        assert "canary" not in str(error.value)


def test_other_machines_are_reached_through_the_proxy_of_the_environment_and_this_one_never(serve, monkeypatch):
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    relay = Script("from the proxy")
    monkeypatch.setenv("http_proxy", serve(relay.app).removesuffix("/v1"))
    monkeypatch.setenv("no_proxy", "127.0.0.2")
    urls = {"http://provider.example/v1": "from the proxy", serve(Script("direct").app): "direct"}
    for url, text in urls.items():
        client = LLMClient("judge", EndpointConfig(model="m", base_url=url))
        assert asyncio.run(client.chat([{"role": "user", "content": "Hi"}])).text == text
    assert [headers["host"] for headers in relay.headers] == ["provider.example"]


def test_an_address_without_its_version_is_told_the_right_one(serve):
    url = serve(Script("Hello").app)
    client = LLMClient("judge", EndpointConfig(model="m", base_url=url.removesuffix("/v1"), max_retries=0))
    with pytest.raises(UserError, match=f"a server answers at {url}, set base_url or JUDGE_API"):
        asyncio.run(client.check())
    reply = asyncio.run(client.chat([{"role": "user", "content": "Hi"}]))
    assert "base_url usually ends in /v1" in reply.detail


def test_missing_keys_are_one_line_before_the_first_call(monkeypatch):
    for name in ("OPENAI_API_KEY", "JUDGE_API_KEY", "TUTOR_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    far = EndpointConfig(model="m", base_url="https://api.example/v1")
    near = EndpointConfig(model="n", base_url="http://node7:8000/v1")
    with pytest.raises(UserError, match=r"JUDGE_API_KEY \(m at https://api.example/v1\), TUTOR_API_KEY") as caught:
        require_keys({"judge": far, "tutor": far, "red": near})
    assert "\n" not in str(caught.value)
    assert "RED_API_KEY" not in str(caught.value)
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    require_keys({"judge": far})


@pytest.mark.parametrize("bad", [2, 99])
def test_check_waits_out_what_passes(serve, quick_retries, bad):
    app, asked = FastAPI(), []

    @app.get("/v1/models")
    async def models():
        asked.append(1)
        return JSONResponse({"data": [{"id": "m"}]}, status_code=503 if len(asked) <= bad else 200)

    client = LLMClient("judge", EndpointConfig(model="m", base_url=serve(app)))
    told = pytest.raises(UserError, match=r"503 .*; this may pass: wait, then run the same")
    with told if bad > 2 else nullcontext():
        run(client, lambda client: client.check())
    assert len(asked) == min(bad, 3) + 1
