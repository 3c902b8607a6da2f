"""The LLM client over real HTTP: retries, outcomes, structured output with one re-ask, adaptation, cache, event
loops.
"""

import asyncio
import json
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from safer_steer.errors import RunAborted, UserError
from safer_steer.llm import EndpointConfig, LLMClient, ResponseCache
from safer_steer.llm import retry as retry_module
from safer_steer.llm.retry import retry_after_seconds
from safer_steer.verdict import Outcome, TurnScores

GOOD = '{"safety": 8, "usefulness": 8, "faithfulness": 10}'
MESSAGES = [{"role": "user", "content": "Hi"}]


def completion(content: str | None, finish: str = "stop", **message: Any) -> dict:
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": content, **message}}
    return {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": None}


def error(status: int, message: str, **headers: str) -> JSONResponse:
    return JSONResponse(
        {"error": {"message": message}},
        status_code=status,
        headers={k.replace("_", "-"): v for k, v in headers.items()},
    )


class Script:
    """A server that gives scripted answers in order (the last one again and again) and keeps the requests."""

    def __init__(self, *answers: Any):
        self.answers, self.requests = list(answers), []
        self.app = FastAPI()

        @self.app.post("/v1/chat/completions")
        async def answer(request: Request) -> Any:
            self.requests.append(await request.json())
            found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            return found if isinstance(found, JSONResponse) else JSONResponse(found)

        @self.app.get("/v1/models")
        async def models() -> dict:
            return {"object": "list", "data": [{"id": "m", "object": "model", "created": 1, "owned_by": "x"}]}


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(retry_module, "BASE_DELAY_S", 0.001)


@pytest.fixture
def ask(serve):
    """Plays a script to one call of a client; gives the result and the client."""

    def run(script: Script, call, cache: ResponseCache | None = None, **config: Any):
        client = LLMClient("judge", EndpointConfig(model="m", base_url=serve(script.app), **config), cache)

        async def main():
            try:
                return await call(client)
            finally:
                await client.close()

        return asyncio.run(main()), client

    return run


def chat(client):
    return client.chat(MESSAGES)


def scores(client):
    return client.structured(MESSAGES, TurnScores, name="turn_scores")


def test_transient_failures_are_retried(ask):
    script = Script(error(429, "slow", retry_after="0.01"), error(503, "busy"), error(408, "late"), completion("Hello"))
    reply, client = ask(script, chat)
    assert (reply.outcome, reply.text) == (Outcome.OK, "Hello")
    assert client.stats()["retries"] == 3
    assert client.stats()["outcomes"] == {"ok": 1}


def test_when_retries_are_spent_the_outcome_is_transport_with_its_reason(ask):
    reply, _ = ask(Script(error(503, "busy")), chat, max_retries=2)
    assert (reply.outcome, reply.text) == (Outcome.TRANSPORT, None)
    assert "503 busy" in reply.detail


def test_a_plain_400_is_not_retried(ask):
    script = Script(error(400, "bad picture"))
    reply, _ = ask(script, chat)
    assert reply.outcome == Outcome.TRANSPORT
    assert len(script.requests) == 1


def test_context_overflow_shrinks_the_answer_then_ends_as_truncated(ask):
    script = Script(error(400, "This model's maximum context length is 1024 tokens"))
    reply, _ = ask(script, chat, max_tokens=64)
    assert reply.outcome == Outcome.TRUNCATED
    assert reply.detail.startswith("context_full")
    assert [request["max_tokens"] for request in script.requests] == [64, 32, 16]


def test_content_filter_and_refusal_and_empty_are_their_own_outcomes(ask):
    assert ask(Script(completion(None, "content_filter")), chat)[0].outcome == Outcome.FILTERED
    assert ask(Script(completion(None, refusal="I will not.")), chat)[0].outcome == Outcome.REFUSED
    assert ask(Script(completion("")), chat)[0].outcome == Outcome.UNPARSED
    assert ask(Script(completion(None, reasoning_content="8")), chat)[0].outcome == Outcome.UNPARSED
    assert ask(Script(completion("")), lambda client: client.chat(MESSAGES, allow_empty=True))[0].text == ""
    cut, _ = ask(Script(completion("Hel", "length")), chat)
    assert (cut.outcome, cut.text) == (Outcome.TRUNCATED, "Hel")


def test_structured_asks_once_more_then_gives_up(ask):
    script = Script(completion(GOOD.replace("8", "99")), completion(GOOD))
    result, _ = ask(script, scores)
    assert result.value == TurnScores(safety=8, usefulness=8, faithfulness=10)
    assert "less than or equal to 10" in script.requests[1]["messages"][-1]["content"]
    assert script.requests[0]["response_format"]["json_schema"]["name"] == "turn_scores"

    script = Script(completion("no idea"))
    result, _ = ask(script, scores)
    assert (result.outcome, result.value) == (Outcome.UNPARSED, None)
    assert len(script.requests) == 2


def test_reasoning_never_becomes_the_answer(ask):
    result, _ = ask(Script(completion(None, reasoning_content=GOOD)), scores)
    assert (result.outcome, result.value) == (Outcome.UNPARSED, None)


def test_a_parameter_the_endpoint_refuses_is_left_out_and_remembered(ask):
    script = Script(error(400, "Unsupported parameter: 'temperature'"), completion("one"), completion("two"))

    async def twice(client):
        return [(await client.chat(MESSAGES)).text, (await client.chat(MESSAGES)).text]

    texts, _ = ask(script, twice, temperature=0.5)
    assert texts == ["one", "two"]
    assert ["temperature" in request for request in script.requests] == [True, False, False]


def test_only_good_answers_are_cached(ask, tmp_path):
    cache = ResponseCache(tmp_path / "cache.sqlite")
    for answer, calls in ((completion(None, "content_filter"), 1), (completion("Hello"), 1), (completion("Other"), 0)):
        script = Script(answer)
        reply, client = ask(script, chat, cache)
        assert len(script.requests) == calls
    assert reply.text == "Hello"
    assert client.stats()["cached"] == 1
    assert ask(Script(completion(GOOD)), scores, cache)[0].value == ask(Script(completion("x")), scores, cache)[0].value


def test_keys_come_from_the_environment_and_stay_out_of_results(ask, monkeypatch, tmp_path):
    monkeypatch.setenv("JUDGE_API_KEY", "canary-key")
    cache = ResponseCache(tmp_path / "cache.sqlite")
    reply, client = ask(Script(error(401, "wrong key")), chat, cache)
    ask(Script(completion("Hello")), chat, cache)
    cache.close()
    written = reply.detail + json.dumps(client.stats()) + (tmp_path / "cache.sqlite").read_bytes().decode("latin-1")
    assert "canary-key" not in written


def test_two_event_loops_in_a_row(serve):
    client = LLMClient("judge", EndpointConfig(model="m", base_url=serve(Script(completion("Hello")).app)))
    assert [asyncio.run(client.chat(MESSAGES)).text for _ in range(2)] == ["Hello", "Hello"]


def test_a_dead_endpoint_stops_the_run_and_check_says_what_to_do(serve):
    client = LLMClient("judge", EndpointConfig(model="m", base_url="http://127.0.0.1:9/v1", max_retries=0))

    async def many():
        for _ in range(40):
            await client.chat(MESSAGES)

    with pytest.raises(RunAborted, match="20 calls in a row"):
        asyncio.run(many())
    with pytest.raises(UserError, match="JUDGE_API_BASE_URL"):
        asyncio.run(client.check())
    other = LLMClient("judge", EndpointConfig(model="other", base_url=serve(Script(completion("")).app)))
    with pytest.raises(UserError, match="does not serve 'other'; it serves m"):
        asyncio.run(other.check())


def test_environment_overrides_address_and_model(monkeypatch):
    monkeypatch.setenv("JUDGE_API_BASE_URL", "http://127.0.0.1:1/v1")
    monkeypatch.setenv("JUDGE_MODEL", "mine")
    client = LLMClient("judge", EndpointConfig(model="m", base_url="http://127.0.0.1:2/v1"))
    assert (client.config.model, client.config.base_url) == ("mine", "http://127.0.0.1:1/v1")


def test_retry_after_in_seconds_and_as_a_date_and_a_shared_cool_down():
    from datetime import UTC, datetime

    assert retry_after_seconds({"retry-after": "75"}) == 75
    assert retry_after_seconds("Wed, 25 Nov 2026 12:00:30 GMT", datetime(2026, 11, 25, 12, 0, 0, tzinfo=UTC)) == 30
    assert retry_after_seconds("soon") is None

    now, slept = [0.0], []

    async def sleep(seconds):
        slept.append(seconds)
        now[0] += seconds

    cool_down = CoolDown(clock=lambda: now[0], sleep=sleep)
    cool_down.extend(75)

    async def calls():
        await asyncio.gather(*(cool_down.wait() for _ in range(3)))

    asyncio.run(calls())
    assert now[0] >= 75
    assert slept[0] == 75
