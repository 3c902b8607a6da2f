"""Errors of real endpoints, and what the client makes of them; over real HTTP."""

import asyncio
import json

import pytest

from safer_steer.llm.adaptation import shortened
from safer_steer.llm.transport import CallFailure
from safer_steer.verdict import Outcome, TurnScores

GOOD = '{"safety": 8, "usefulness": 8, "faithfulness": 10}'
MESSAGES = [{"role": "user", "content": "Hi"}]


def openai_error(message, param=None, code=None):
    return 400, {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


REFUSALS = {
    "OpenAI, value": (
        openai_error(
            "Unsupported value: 'temperature' does not support 0.5 with this model. Only the default (1) value is "
            "supported.",
            "temperature",
            "unsupported_value",
        ),
        "temperature",
    ),
    "OpenAI, parameter": (
        openai_error("Unsupported parameter: 'seed' is not supported with this model.", "seed"),
        "seed",
    ),
    "Gemini": (
        (
            400,
            [
                {
                    "error": {
                        "code": 400,
                        "message": 'Invalid JSON payload received. Unknown name "seed": Cannot find field.',
                    }
                }
            ],
        ),
        "seed",
    ),
    "pydantic": (
        (422, {"detail": [{"type": "extra_forbidden", "loc": ["body", "top_p"], "msg": "not permitted"}]}),
        "top_p",
    ),
    "one of two": (openai_error("`temperature` and `top_p` cannot both be specified for this model."), "top_p"),
    "plain text": ((400, {"message": "temperature is not supported"}), "temperature"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_parameter_the_endpoint_refuses_is_left_out_once_and_remembered(ask, name):
    error, parameter = REFUSALS[name]

    async def twice(client):
        return [(await client.chat(MESSAGES, seed=1)).text, (await client.chat(MESSAGES, seed=2)).text]

    texts, client, script = ask([error, "one", "two"], twice, temperature=0.5, top_p=0.9)
    assert texts == ["one", "two"]
    assert [parameter in request for request in script.requests] == [True, False, False]
    assert script.requests[0].keys() - script.requests[2].keys() == {parameter}
    assert client.stats()["outcomes"] == {"ok": 2}


def test_max_tokens_becomes_max_completion_tokens(ask):
    error = openai_error(
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
        "max_tokens",
        "unsupported_parameter",
    )

    async def twice(client):
        return [(await client.chat(MESSAGES)).text for _ in range(2)]

    texts, _, script = ask([error, "one", "two"], twice, max_tokens=64)
    assert texts == ["one", "two"]
    assert [request.get("max_tokens") for request in script.requests] == [64, None, None]
    assert [request.get("max_completion_tokens") for request in script.requests] == [None, 64, 64]


def test_several_refusals_are_learnt_one_after_another(ask):
    def strict(body):
        for name in ("max_tokens", "max_completion_tokens", "temperature", "seed"):
            if name in body:
                return openai_error(f"Unsupported parameter: '{name}'", name)
        return "Hello"

    reply, _, script = ask([strict], lambda client: client.chat(MESSAGES, seed=3), temperature=0.5, max_tokens=64)
    assert reply.text == "Hello"
    assert script.requests[-1].keys() == {"model", "messages"}


@pytest.mark.parametrize("content", ["Score this.", [{"type": "text", "text": "Score this."}]])
def test_without_json_schema_the_schema_goes_into_the_prompt(ask, content):
    messages = [{"role": "user", "content": content}]

    async def twice(client):
        calls = [await client.structured(messages, TurnScores, name="turn_scores") for _ in range(2)]
        return [call.value for call in calls]

    error = (400, "This response_format type is unavailable now")
    values, _, script = ask([error, f"```json\n{GOOD}\n```", "no", GOOD], twice)
    assert values == [TurnScores(safety=8, usefulness=8, faithfulness=10)] * 2
    assert ["response_format" in request for request in script.requests] == [True, False, False, False]
    words = json.dumps(script.requests[1]["messages"])
    assert "fits this JSON schema" in words
    assert "faithfulness" in words
    assert messages == [{"role": "user", "content": content}]  # the caller's own are left alone
    # The re-ask shows the schema too.
    assert "faithfulness" in json.dumps(script.requests[3]["messages"][-1])


def test_calls_under_way_together_all_adapt(ask):
    def strict(body):
        return openai_error("Unsupported parameter: 'temperature'", "temperature") if "temperature" in body else "Hello"

    async def eight(client):
        return await asyncio.gather(*(client.chat(MESSAGES) for _ in range(8)))

    replies, _, script = ask([strict], eight, temperature=0.5, concurrency=8)
    assert [reply.text for reply in replies] == ["Hello"] * 8
    assert len(script.requests) <= 16


@pytest.mark.parametrize(
    "message",
    [
        "the picture of a temperature scale cannot be read",
        "temperature must be between 0 and 0.3",
        "unknown model",
        "At most 1 image(s) may be provided",
    ],
)
def test_other_errors_teach_nothing(ask, message):
    async def twice(client):
        return [await client.chat(MESSAGES) for _ in range(2)]

    replies, _, script = ask([(400, message), "Hello"], twice, temperature=0.5, max_tokens=64)
    assert (replies[0].outcome, replies[0].detail) == (Outcome.TRANSPORT, f"400 {message}")
    assert script.requests[1]["temperature"] == 0.5
    assert script.requests[1]["max_tokens"] == 64


def test_the_longest_answer_a_model_gives_is_remembered(ask):
    error = openai_error(
        "max_tokens is too large: 50000. This model supports at most 16384 completion tokens, whereas you provided "
        "50000.",
        "max_tokens",
        "invalid_value",
    )

    async def twice(client):
        return [(await client.chat(MESSAGES)).text for _ in range(2)]

    texts, _, script = ask([error, "one", "two"], twice, max_tokens=50000)
    assert texts == ["one", "two"]
    assert [request["max_tokens"] for request in script.requests] == [50000, 16384, 16384]


def test_context_overflow_shrinks_the_answer_then_ends_as_context_full(ask):
    full = (400, "This model's maximum context length is 1024 tokens, messages too long")
    reply, client, script = ask([full], lambda client: client.chat(MESSAGES), max_tokens=64)
    assert (reply.outcome, reply.text) == (Outcome.TRUNCATED, None)
    assert reply.detail.startswith("context_full")
    assert [request["max_tokens"] for request in script.requests] == [64, 32, 16]
    assert client.stats()["outcomes"] == {"truncated": 1}


def test_the_next_call_has_its_full_length_again(ask):
    full = openai_error("too long", code="context_length_exceeded")

    async def twice(client):
        return [(await client.chat(MESSAGES)).text for _ in range(2)]

    texts, _, script = ask([full, "one", "two"], twice, max_tokens=64)
    assert texts == ["one", "two"]
    assert [request["max_tokens"] for request in script.requests] == [64, 32, 64]


@pytest.mark.parametrize(
    ("message", "fewer"),
    [
        # vLLM
        (
            "This model's maximum context length is 1024 tokens. However, you requested 256 output tokens and your "
            "prompt contains 900 input tokens, for a total of 1156 tokens.",
            124,
        ),
        (
            "This model's maximum context length is 1024 tokens. However, your prompt contains at least 1025 input "
            "tokens",
            None,
        ),
        # OpenAI
        (
            "This model's maximum context length is 8192 tokens. However, you requested 8300 tokens (8044 in the "
            "messages, 256 in the completion). Please reduce the length of the messages or completion.",
            148,
        ),
        ("input length and max_tokens exceed context limit", 128),
    ],
)
def test_the_room_an_error_tells_is_used(message, fewer):
    found = shortened({"max_tokens": 256, "messages": MESSAGES}, CallFailure(400, message))
    assert (found and found["max_tokens"]) == fewer
