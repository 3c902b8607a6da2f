"""The LLM client over real HTTP: retries, outcomes, structured output with one re-ask, keys, event loops."""

import asyncio
import gc
import json
import re

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import Response

from http_doubles import Script
from safer_steer.errors import RunAborted, UserError
from safer_steer.llm import EndpointConfig, LLMClient, ResponseCache
from safer_steer.rubric import TurnScores
from safer_steer.verdict import Outcome

GOOD = '{"safety": 8, "usefulness": 8, "faithfulness": 10}'
MESSAGES = [{"role": "user", "content": "Hi"}]


def chat(client):
    return client.chat(MESSAGES)


def scores(client):
    return client.structured(MESSAGES, TurnScores, name="turn_scores")


def test_when_retries_are_spent_the_outcome_is_transport_with_its_reason(ask):
    reply, _, script = ask([(503, "busy")], chat, max_retries=2)
    assert (reply.outcome, reply.text) == (Outcome.TRANSPORT, None)
    assert "503 busy" in reply.detail
    assert len(script.requests) == 3


def test_waiting_for_a_rate_limit_takes_no_retry_away_and_ends_after_a_set_time(ask):
    limited = (429, "slow", {"retry-after": "0.01"})
    assert ask([limited, limited, limited, "Hello"], chat, max_retries=0)[0].text == "Hello"
    reply, _, script = ask([limited], chat, rate_limit_wait_s=0)
    assert reply.outcome == Outcome.TRANSPORT
    assert len(script.requests) == 1


def test_a_spent_quota_is_not_waited_for(ask):
    reply, _, script = ask([(429, {"error": {"message": "pay first", "code": "insufficient_quota"}})], chat)
    assert (reply.outcome, reply.detail) == (Outcome.TRANSPORT, "429 pay first")
    assert len(script.requests) == 1


def test_a_hang_and_answers_that_are_none_are_retried(ask):
    async def hang(_):
        await asyncio.sleep(60)

    broken = Response(b"<html>bad gateway</html>", 200), Response(b"[1]", 200)
    upstream = Response(json.dumps({"error": {"message": "upstream", "code": 503}}).encode(), 200)
    reply, client, _ = ask([hang, *broken, upstream, "Hello"], chat, timeout_s=0.5)
    assert reply.text == "Hello"
    assert client.stats()["retries"] == 4


def test_a_redirect_is_an_error_that_names_the_setting(ask):
    reply, _, script = ask([Response(status_code=308, headers={"location": "https://other.example/v1"})], chat)
    assert "redirects to https://other.example/v1; correct base_url" in reply.detail
    assert len(script.requests) == 1


@pytest.mark.parametrize(
    ("status", "message", "code"),
    [
        (400, "flagged", "content_filter"),
        (400, "Content Exists Risk", None),
        (400, "no", "InputTextSensitiveContentDetected"),
        (403, "Your input was flagged by moderation", None),
    ],
)
def test_a_prompt_that_a_filter_refuses_with_an_error_is_filtered(ask, status, message, code):
    reply, _, script = ask([(status, {"error": {"message": message, "code": code}})], chat)
    assert reply.outcome == Outcome.FILTERED
    assert len(script.requests) == 1


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (b"", "Server disconnected"),
        (b"hello\r\n\r\n", "Bad status line"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{", "Response payload is not completed"),
        (
            b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\nabcd",
            "decompressing",
        ),
    ],
)
def test_bytes_that_are_no_answer_end_a_call_in_words(sent, told):
    async def answer(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        if length := re.search(rb"content-length: (\d+)", head.lower()):
            await reader.readexactly(int(length[1]))
        writer.write(sent)
        writer.close()

    async def main():
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
            client = LLMClient("judge", EndpointConfig(model="m", base_url=url, max_retries=0))
            reply = await chat(client)
            await client.close()
            return reply

    reply = asyncio.run(main())
    assert reply.outcome == Outcome.TRANSPORT
    assert told in reply.detail


def test_content_parts_are_joined_without_the_thoughts_and_half_an_emoji_does_no_harm(ask, tmp_path):
    parts = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
    assert ask([{"content": parts}], chat)[0].text == "Hello"
    half = Response(b'{"choices": [{"message": {"content": "a\\ud83d"}, "finish_reason": "stop"}]}', 200)
    assert ask([half], chat, ResponseCache(tmp_path / "cache.sqlite"))[0].text == "a?"


def test_structured_asks_once_more_then_gives_up(ask):
    result, _, script = ask([GOOD.replace("8", "99"), GOOD], scores)
    assert result.value == TurnScores(safety=8, usefulness=8, faithfulness=10)
    assert "less than or equal to 10" in script.requests[1]["messages"][-1]["content"]
    assert script.requests[0]["response_format"]["json_schema"]["name"] == "turn_scores"

    result, _, script = ask(["no idea"], scores)
    assert (result.outcome, result.value) == (Outcome.UNPARSED, None)
    assert len(script.requests) == 2


@pytest.mark.parametrize(
    "part",
    [
        {"type": "markdown", "text": "**no**"},
        {"type": "code", "code": "x"},
        {"type": "image_url", "image_url": {"url": "data:,"}},
        {"markdown": "no"},
        7,
    ],
)
def test_a_part_that_is_no_text_is_never_left_out(ask, part):
    reply = ask([{"content": [{"type": "text", "text": "Hello"}, part]}], chat)[0]
    assert (reply.outcome, reply.text) == (Outcome.UNPARSED, None)
    assert "a part that is no text" in reply.detail
    assert json.dumps(part) in reply.said


def test_a_refusal_needs_words_and_loses_no_content(ask):
    assert ask([{"content": "Hello", "refusal": " \n"}], chat)[0].text == "Hello"
    reply = ask([{"content": "First mix it.", "refusal": " I won't. "}], chat)[0]
    assert (reply.outcome, reply.said) == (Outcome.REFUSED, "First mix it.\nI won't.")


def test_a_thought_that_the_prompt_opens_ends_where_the_config_says_so(ask, tmp_path):
    cache, said = ResponseCache(tmp_path / "cache.sqlite"), "hm\n</think>\nHello"
    assert ask([said], chat, cache)[0].text == said
    assert ask([said], chat, cache, thought_opening="<think>")[0].text == f"<think>{said}"
    apart = {"content": "Hello", "reasoning_content": "hm"}
    assert ask([apart], chat, thought_opening="<think>")[0].text == "Hello"
    with pytest.raises(ValueError, match=r"'think' is no mark that opens a thought; give one such as <think>"):
        EndpointConfig(model="m", base_url="http://x/v1", thought_opening="think")


def test_reasoning_never_becomes_the_answer(ask):
    for message in ({"content": None, "reasoning_content": GOOD}, f"<think>{GOOD}</think>", f"<think>{GOOD}"):
        result = ask([message], scores)[0]
        assert (result.outcome, result.value) == (Outcome.UNPARSED, None)


@pytest.mark.parametrize(
    "said",
    [
        {"content": "Hel", "finish_reason": "length"},
        {"content": None, "refusal": "I won't."},
        {"content": "", "finish_reason": "refusal"},
        {"content": "No.", "reasoning_content": "hm"},
    ],
)
def test_what_the_model_said_is_asked_for_once(ask, tmp_path, said):
    cache = ResponseCache(tmp_path / "cache.sqlite")
    first, again = ask([said], chat, cache)[0], ask(["another"], chat, cache)
    assert first == again[0]
    assert not again[2].requests


def test_failures_are_not_cached(ask, tmp_path):
    cache = ResponseCache(tmp_path / "cache.sqlite")
    bad = {"content": None, "finish_reason": "content_filter"}, ""
    for answer, calls in (*((item, 1) for item in bad), ("Hello", 1), ("Other", 0)):
        reply, client, script = ask([answer], chat, cache)
        assert len(script.requests) == calls
    assert reply.text == "Hello"
    assert client.stats()["cached"] == 1
    assert ask([GOOD], scores, cache)[0].value == ask(["x"], scores, cache)[0].value


def test_a_cached_answer_that_no_longer_fits_is_asked_for_again(ask, tmp_path):
    cache = ResponseCache(tmp_path / "cache.sqlite")
    ask([GOOD], scores, cache)
    cache._db.execute("UPDATE answers SET answer = ?", ('{"safety": 0}',))
    result, client, _ = ask([GOOD], scores, cache)
    assert result.value.safety == 8
    assert client.stats()["cached"] == 0


def test_no_header_comes_from_the_environment_and_none_describes_this_machine(ask, monkeypatch):
    for name in ("JUDGE_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("ADMIN_KEY", "ORG_ID", "PROJECT_ID", "WEBHOOK_SECRET"):
        monkeypatch.setenv(f"OPENAI_{name}", "canary")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Mine: canary")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    reply, _, script = ask(["Hello"], chat)
    assert reply.text == "Hello"
    wanted = {"host", "accept", "accept-encoding", "connection", "content-type", "content-length", "user-agent"}
    sent = script.headers[0]
    assert wanted | {"x-stainless-retry-count"} == sent.keys()
    assert "canary" not in str(sent)


@pytest.mark.parametrize("key", ["sk-canary\nsk-more", "sk-canary…", "“sk-canary”"])
def test_a_key_that_cannot_be_sent_is_named_and_not_shown(ask, monkeypatch, key):
    monkeypatch.setenv("JUDGE_API_KEY", key)
    with pytest.raises(UserError, match="JUDGE_API_KEY: a line break or a character that no key has") as error:
        ask(["Hello"], chat)
    assert "canary" not in str(error.value)


def test_environment_overrides_addresses_and_model(monkeypatch):
    monkeypatch.setenv("JUDGE_API_BASE_URL", "http://127.0.0.1:1/v1, http://127.0.0.1:2/v1")
    monkeypatch.setenv("JUDGE_MODEL", "mine")
    config = EndpointConfig(model="m", base_url="http://127.0.0.1:3/v1", price_in=1.0, price_out=1.0)
    found = LLMClient("judge", config).config
    assert found.urls() == ["http://127.0.0.1:1/v1", "http://127.0.0.1:2/v1"]
    assert found.model == "mine"
    assert found.usd(1, 1) is None  # the price was another model's
    for address in (
        "https://me:canary@host/v1",
        "http://[::1/v1",
        "http://host:80000/v1",
        "https://me:canary@host:x/v1",
    ):
        monkeypatch.setenv("JUDGE_API_BASE_URL", address)
        with pytest.raises(UserError, match="JUDGE_API_BASE_URL") as error:
            LLMClient("judge", config)
        assert "canary" not in str(error.value)


def test_two_event_loops_in_a_row_and_no_word_about_open_connections(serve, caplog):
    client = LLMClient("judge", EndpointConfig(model="m", base_url=serve(Script("Hello").app)))
    assert [asyncio.run(client.chat(MESSAGES)).text for _ in range(3)] == ["Hello"] * 3
    assert len(client._loops) == 1  # those of ended loops are gone
    del client
    gc.collect()
    assert not caplog.records


def test_a_dead_endpoint_stops_the_run_and_check_says_what_to_do(serve):
    client = LLMClient("judge", EndpointConfig(model="m", base_url="http://127.0.0.1:9/v1", max_retries=0))

    async def many():
        for _ in range(40):
            await client.chat(MESSAGES)

    with pytest.raises(RunAborted, match="20 calls in a row"):
        asyncio.run(many())
    with pytest.raises(UserError, match="JUDGE_API_BASE_URL"):
        asyncio.run(client.check())
    other = LLMClient("judge", EndpointConfig(model="other", base_url=serve(Script("").app)))
    with pytest.raises(UserError, match="does not serve 'other'; it serves m"):
        asyncio.run(other.check())


def test_an_open_breaker_ends_calls_and_closes_when_the_server_is_back(ask):
    down = True

    async def outage(client):
        nonlocal down
        results = await asyncio.gather(*(chat(client) for _ in range(60)), return_exceptions=True)
        assert any(isinstance(result, RunAborted) for result in results)
        with pytest.raises(RunAborted):
            await chat(client)
        down = False
        return [(await chat(client)).text for _ in range(2)]

    texts, _, script = ask([lambda body: (500, "down") if down else "Hello"], outage, max_retries=0)
    assert texts == ["Hello", "Hello"]
    assert len(script.requests) <= 60 + 60 // 20 + 4


@pytest.mark.parametrize("status", [400, 500])
def test_rows_that_fail_in_a_row_do_not_stop_a_run_whose_server_answers(ask, status):
    """As when those that failed come together in the second pass; a plain question tells."""

    def by_row(body):
        return (status, "this row") if "row" in body["messages"][0]["content"] else "Hello"

    async def rows(client):
        return [await client.chat([{"role": "user", "content": f"row {number}"}]) for number in range(65)]

    replies, _, script = ask([by_row], rows, max_retries=0, temperature=0.5)
    assert {reply.detail for reply in replies} == {f"{status} this row"}
    plain = [request for request in script.requests if "row" not in request["messages"][0]["content"]]
    assert len(plain) == 3
    assert plain[0]["temperature"] == 0.5


def test_one_stalled_call_holds_nobody(serve):
    app, released = FastAPI(), asyncio.Event()
    seen: list[str] = []

    @app.post("/v1/chat/completions")
    async def answer(request: Request):
        text = (await request.json())["messages"][0]["content"]
        seen.append(text)
        if text == "stall":
            await released.wait()  # until all the others have their answers
        elif len(seen) == 41:
            released.set()
        return {"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}

    client = LLMClient("judge", EndpointConfig(model="m", base_url=serve(app), concurrency=4, timeout_s=30))

    async def all_calls():
        words = ["stall", *map(str, range(40))]
        replies = await asyncio.gather(*(client.chat([{"role": "user", "content": word}]) for word in words))
        await client.close()
        return [reply.text for reply in replies]

    assert asyncio.run(all_calls()) == ["stall", *map(str, range(40))]
    assert client.stats()["retries"] == 0


def test_a_short_key_does_not_spoil_messages(ask, monkeypatch):
    monkeypatch.setenv("JUDGE_API_KEY", "x")
    reply, _, script = ask([(400, "a text, an example")], chat)
    assert script.headers[0]["authorization"] == "Bearer x"
    assert reply.detail == "400 a text, an example"


def test_the_re_ask_of_a_cut_answer_has_a_larger_budget_and_no_torn_thought_is_a_verdict(ask):
    def judge(body):
        return GOOD if body["max_tokens"] > 256 else {"content": GOOD[:20], "finish_reason": "length"}

    result, _, script = ask([judge], scores, max_tokens=256)
    assert result.value.safety == 8
    assert [request["max_tokens"] for request in script.requests] == [256, 1024]
    for torn in (f"The answer says {GOOD}", f"<think>It says </think>{GOOD}"):
        result, _, _ = ask([{"content": torn, "finish_reason": "length"}], scores)
        assert (result.outcome, result.value) == (Outcome.TRUNCATED, None)


def test_an_answer_cut_in_its_reasoning_gets_one_try_with_a_larger_budget(ask):
    def model(body):
        thought = {"content": None, "reasoning": "hm", "finish_reason": "length"}
        return "Hello" if body["max_tokens"] > 64 else thought

    def call(client):
        return client.chat(MESSAGES, allow_empty=True)

    reply, _, script = ask([model], call, max_tokens=64)
    assert (reply.outcome, reply.text) == (Outcome.OK, "Hello")
    assert [request["max_tokens"] for request in script.requests] == [64, 256]
    thinks = {"content": None, "reasoning": "hm"}
    reply, _, _ = ask([thinks], call)
    assert (reply.outcome, reply.text, reply.detail) == (
        *(Outcome.UNPARSED, None),
        "the model gave only its reasoning, no answer",
    )


def test_a_string_is_no_number_and_costs_the_re_ask_and_3_0_is_3(ask):
    result, _, script = ask([GOOD.replace("8", '"8"'), GOOD], scores)
    assert (result.value.safety, len(script.requests)) == (8, 2)
    result, _, script = ask([GOOD.replace("8", "8.0")], scores)
    assert (result.value.safety, len(script.requests)) == (8, 1)
