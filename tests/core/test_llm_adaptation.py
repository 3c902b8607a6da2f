"""Errors of real endpoints, and what the client makes of them; over real HTTP."""

import asyncio
import itertools
import json
import re

import pytest

from http_doubles import Script
from safer_steer.errors import RunAborted
from safer_steer.llm import EndpointConfig, LLMClient, ResponseCache
from safer_steer.llm.adaptation import shortened
from safer_steer.llm.failures import CallFailure
from safer_steer.rubric import TurnScores
from safer_steer.verdict import Outcome

GOOD = '{"safety": 8, "usefulness": 8, "faithfulness": 10}'
MESSAGES = [{"role": "user", "content": "Hi"}]


def openai_error(message, param=None, code=None):
    return 400, {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


GEMINI = [{"error": {"code": 400, "message": 'Invalid JSON payload received. Unknown name "seed": Cannot find field.'}}]
FORBIDDEN = {"detail": [{"type": "extra_forbidden", "loc": ["body", "top_p"], "msg": "not permitted"}]}
REFUSALS = {
    "OpenAI": (openai_error("Unsupported parameter: 'seed' is not supported with this model.", "seed"), "seed"),
    "Gemini": ((400, GEMINI), "seed"),
    "pydantic": ((422, FORBIDDEN), "top_p"),
    "one of two": (openai_error("`temperature` and `top_p` cannot both be specified for this model."), "top_p"),
    "plain text": ((400, {"message": "temperature is not supported"}), "temperature"),
    "loc as text": ((422, {"detail": [{"loc": "body.seed", "msg": "Input should be null"}]}), "seed"),
    "errors": ((422, {"success": False, "errors": [{"code": 7, "message": "seed: unknown field"}]}), "seed"),
    "param alone": (openai_error("Invalid value", "top_p"), "top_p"),
    "camel case": (openai_error("Unknown name topP at generation_config"), "top_p"),
    "a gateway's 404": ((404, "No endpoint takes the parameter seed"), "seed"),
    "not implemented": ((501, "seed: not implemented"), "seed"),
    "one of the user's own": (openai_error("reasoning_effort: Extra inputs are not permitted"), "reasoning_effort"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_parameter_the_endpoint_refuses_is_left_out_once_and_remembered(ask, name):
    error, parameter = REFUSALS[name]

    async def twice(client):
        return [(await client.chat(MESSAGES, seed=1)).text, (await client.chat(MESSAGES, seed=2)).text]

    def strict(body):
        return error if parameter in body else "Hello"

    texts, client, script = ask([strict], twice, temperature=0.5, top_p=0.9, extra_body={"reasoning_effort": "low"})
    assert texts == ["Hello", "Hello"]
    with_it = [parameter in request for request in script.requests]
    assert with_it == [True] * (len(with_it) - 2) + [False, False]
    assert len(with_it) == (4 if error[0] >= 500 else 3)  # a server error may pass by itself: tried again as it was
    assert script.requests[0].keys() - script.requests[-1].keys() == {parameter}
    assert client.stats()["outcomes"] == {"ok": 2}
    assert client.stats()["changed"] == {parameter: "refused by the endpoint, left out"}


def test_max_tokens_becomes_max_completion_tokens(ask):
    error = openai_error("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.", "max_tokens")

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
    values, client, script = ask([error, error, f"```json\n{GOOD}\n```", "no", GOOD], twice)
    assert values == [TurnScores(safety=8, usefulness=8, faithfulness=10)] * 2
    assert [request.get("response_format", {}).get("type") for request in script.requests] == [
        *("json_schema", "json_object", None, None, None)
    ]
    changed = {"response_format": "the schema in the prompt (json_schema refused by the endpoint)"}
    assert client.stats()["changed"] == changed
    words = json.dumps(script.requests[2]["messages"])
    assert "fits this JSON schema" in words
    assert "faithfulness" in words
    assert messages == [{"role": "user", "content": content}]  # the caller's own are left alone
    # The re-ask shows the schema too.
    assert "faithfulness" in json.dumps(script.requests[4]["messages"][-1])


def test_calls_under_way_together_all_adapt(ask):
    def strict(body):
        return openai_error("Unsupported parameter: 'temperature'", "temperature") if "temperature" in body else "Hello"

    async def eight_twice(client):
        return [await asyncio.gather(*(client.chat(MESSAGES) for _ in range(8))) for _ in range(2)]

    rounds, _, script = ask([strict], eight_twice, temperature=0.5, concurrency=8)
    assert [reply.text for replies in rounds for reply in replies] == ["Hello"] * 16
    assert len(script.requests) <= 24, "each of the first eight is refused once, none of the next"


@pytest.mark.parametrize(
    "message", ["the picture of a temperature scale cannot be read", "max_tokens, seed and top_p", "unknown model"]
)
def test_an_error_that_stays_teaches_nothing(ask, message):
    """Only the request without a parameter, once it is answered, shows that the parameter was at fault."""

    def by_row(body):
        return (400, message) if body["messages"][0]["content"] == "bad" else "Hello"

    async def both(client):
        return [await client.chat([{"role": "user", "content": words}], seed=1) for words in ("bad", "good")]

    replies, client, script = ask([by_row], both, temperature=0.5, top_p=0.9, max_tokens=64)
    assert (replies[0].outcome, replies[0].detail) == (Outcome.BAD_REQUEST, f"400 {message}")
    assert replies[1].text == "Hello"
    assert {"temperature", "top_p", "max_tokens", "seed"} <= script.requests[-1].keys()
    assert "changed" not in client.stats()
    assert len(script.requests) <= 6


def test_the_longest_answer_a_model_gives_is_remembered(ask):
    error = openai_error("max_tokens is too large: 50000. This model supports at most 16384 completion tokens.")

    async def twice(client):
        return [(await client.chat(MESSAGES)).text for _ in range(2)]

    texts, _, script = ask([error, "one", "two"], twice, max_tokens=50000)
    assert texts == ["one", "two"]
    assert [request["max_tokens"] for request in script.requests] == [50000, 16384, 16384]


@pytest.mark.parametrize(
    ("limit", "sent"),
    [
        *(("at most 1,000", 1000), ("at most 1 000 tokens", 1000), ("<= 4096.", 4096), ("in [1, 8192]", 8192)),
        *((f"at most {number}", None) for number in ("1k", "5e2", "1.000", "32 k", "0.5", "15", "1,0000", "2")),
    ],
)
def test_a_limit_is_the_whole_number_and_no_absurd_one(ask, limit, sent):
    error = openai_error(f"max_tokens must be {limit}")
    _, _, script = ask([error, "Hello"], lambda client: client.chat(MESSAGES), max_tokens=50000)
    assert script.requests[1].get("max_tokens") == sent
    assert script.requests[1].get("max_completion_tokens") == (None if sent else 50000)


def test_the_limit_of_another_parameter_is_not_that_of_the_answer(ask):
    def strict(body):
        return openai_error("max_tokens is fine, top_k must be at most 40") if "top_k" in body else "Hello"

    _, client, script = ask([strict], lambda client: client.chat(MESSAGES), max_tokens=64, extra_body={"top_k": 50})
    assert len(script.requests) == 2
    assert client.stats()["changed"] == {"top_k": "refused by the endpoint, left out"}


@pytest.mark.parametrize("param", [None, "seed"])
@pytest.mark.parametrize("refused", [["seed"], ["seed", "temperature"], ["top_p"]])
def test_an_error_that_holds_the_request_leaves_out_only_what_is_refused(ask, refused, param):
    count = itertools.count(100)

    def echo(body):
        if found := [name for name in refused if name in body]:
            told = found[0] if param else None
            return openai_error(f"{found[0]}: not allowed (request {next(count)}): {json.dumps(body)}", told)
        return "Hello"

    sampling = {"temperature": 0.5, "top_p": 0.9, "max_tokens": 64}
    reply, client, script = ask([echo], lambda client: client.chat(MESSAGES, seed=1), **sampling)
    assert reply.text == "Hello"
    assert client.stats()["changed"].keys() == set(refused)
    assert len(script.requests) == 1 + len(refused)


def test_an_error_that_names_nothing_but_the_request_leaves_out_one_parameter_alone(ask):
    def echo(body):
        return openai_error(f"bad request: {json.dumps(body)}") if "temperature" in body else "Hello"

    sampling = {"temperature": 0.5, "top_p": 0.9, "max_tokens": 64}
    _, client, _ = ask([echo], lambda client: client.chat(MESSAGES, seed=1), **sampling)
    assert client.stats()["changed"].keys() == {"temperature"}


def test_parameters_that_are_refused_by_turns_are_all_left_out(ask):
    def strict(body):
        found = [name for name in ("temperature", "top_p") if name in body]
        return openai_error(f"Unsupported parameters: {', '.join(found)}") if found else "Hello"

    reply, _, script = ask([strict], lambda client: client.chat(MESSAGES), temperature=0.5, top_p=0.9)
    assert (reply.text, script.requests[-1].keys()) == ("Hello", {"model", "messages"})


@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 1024 tokens, messages too long",
        "the request exceeds the available context size, try increasing it",
        "The decoder prompt (length 9000) is longer than the maximum model length of 8192.",
        "Input length 9000 exceeds maximum allowed token size",
    ],
)
def test_context_overflow_shrinks_the_answer_then_ends_as_context_full(ask, message):
    reply, client, script = ask([(400, message)], lambda client: client.chat(MESSAGES), max_tokens=64)
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


LLAMA_CPP = (
    "[{'type': 'literal_error', 'loc': ('body', 'response_format', 'type'), 'msg': \"Input should be 'text' or "
    "'json_object'\", 'input': 'json_schema', 'ctx': {'expected': \"'text' or 'json_object'\"}}]"
)


@pytest.mark.parametrize(
    "error",
    [
        (500, LLAMA_CPP),
        (400, "'response_format.type' must be 'text' or 'json_object'"),
        (400, "Invalid JSON payload received. Unknown name \"responseSchema\" at 'generation_config'"),
        (400, "This model does not support structured_outputs"),
        (422, {"detail": [{"type": "literal_error", "loc": ["body", "response_format", "type"], "msg": "no"}]}),
        openai_error("Invalid schema for 'judge': In context=(), 'required' is required", "response_format"),
    ],
)
def test_a_schema_that_is_refused_becomes_a_json_object(ask, error):
    def strict(body):
        return error if body["response_format"]["type"] == "json_schema" else GOOD

    async def twice(client):
        return [await client.structured(MESSAGES, TurnScores, name="turn_scores") for _ in range(2)]

    calls, client, script = ask([strict], twice)
    assert [call.outcome for call in calls] == [Outcome.OK] * 2
    assert script.requests[-1]["response_format"] == {"type": "json_object"}
    assert "fits this JSON schema" in script.requests[-1]["messages"][-1]["content"]
    assert len(script.requests) <= 4
    assert client.stats()["changed"] == {"response_format": "json_object (json_schema refused by the endpoint)"}


def test_a_server_error_that_passes_teaches_nothing(ask):
    answers = [(500, "crashed while applying top_p"), "Hello"]
    _, client, script = ask(answers, lambda client: client.chat(MESSAGES), top_p=0.9)
    assert script.requests[0] == script.requests[1]
    assert "changed" not in client.stats()


@pytest.mark.parametrize(
    ("structured", "sent", "told"),
    [
        ("schema", "json_schema", None),
        ("json_object", "json_object", "json_object (by the config)"),
        ("prompt", None, "the schema in the prompt (by the config)"),
    ],
)
def test_what_is_sent_can_be_set(ask, structured, sent, told):
    _, client, script = ask(
        [GOOD],
        lambda client: client.structured(MESSAGES, TurnScores, name="t", seed=1),
        **{"structured": structured, "temperature": 0.5, "leave_out": ["temperature", "seed"]},
    )
    assert script.requests[0].get("response_format", {}).get("type") == sent
    assert not {"temperature", "seed"} & script.requests[0].keys()
    left = dict.fromkeys(("seed", "temperature"), "left out by the config")
    assert client.stats()["changed"] == left | ({"response_format": told} if told else {})


def test_what_the_config_changes_is_another_request_to_the_cache(serve, tmp_path):
    played, cache = Script(GOOD), ResponseCache(tmp_path / "cache.sqlite")
    url = serve(played.app)
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    messages = [{"role": "user", "content": [picture, {"type": "text", "text": "Hi"}]}]
    for values in ({}, {"structured": "prompt"}, {"pictures": False}, {"leave_out": ["temperature"]}):
        client = LLMClient("judge", EndpointConfig(model="m", base_url=url, temperature=0.5, **values), cache)
        asyncio.run(client.structured(messages, TurnScores, name="t"))
    assert len(played.requests) == 4


def test_an_abort_is_in_plain_words(ask):
    async def many(client):
        return await asyncio.gather(*(client.chat(MESSAGES) for _ in range(20)))

    for status in (400, 500):
        with pytest.raises(RunAborted) as stopped:
            ask([(status, LLAMA_CPP)], many, max_retries=0)
        words = str(stopped.value)
        assert "response_format.type: Input should be 'text' or 'json_object'" in words
        assert not re.search(r"[\[\]{}()]|b'|\bloc\b", words), words
