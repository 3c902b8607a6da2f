"""The LLM client: one object for a role, asynchronous, against any OpenAI-compatible endpoint; every call ends in one
outcome.

Input: chat messages. Output: `Reply` (text) or `Structured` (a validated object). Transport failures are retried,
400s are
not; parameters an endpoint refuses are left out once and remembered; contexts that overflow end as `truncated`.
"""

import asyncio
import re
import time
import weakref
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, TypeVar

import httpx
import openai
from pydantic import BaseModel

from safer_steer.errors import RunAborted, UserError
from safer_steer.llm.cache import ResponseCache
from safer_steer.llm.config import EndpointConfig, api_key
from safer_steer.llm.parsing import ParseError, parse_structured
from safer_steer.llm.retry import CoolDown, backoff_seconds, is_retryable, retry_after_seconds
from safer_steer.llm.usage import UsageMeter
from safer_steer.verdict import Outcome

Model = TypeVar("Model", bound=BaseModel)
CONTEXT_FULL = "context_full"
BREAKER_FAILURES = 20  # calls in a row without any answer, each after all its retries, that stop the run
_CONTEXT = re.compile(
    r"context length|context window|maximum context|max_model_len|too long|too many tokens", re.IGNORECASE
)
_ADAPTABLE = ("response_format", "temperature", "top_p", "seed", "max_tokens")


@dataclass(frozen=True)
class Reply:
    """A model's answer: `text` with outcome `ok` or `truncated` (cut at `max_tokens`), else None and a `detail` that
    says why.
    """

    outcome: Outcome
    text: str | None
    detail: str = ""


@dataclass(frozen=True)
class Structured(Generic[Model]):
    """A validated object with outcome `ok`, else None and a `detail` that says why."""

    outcome: Outcome
    value: Model | None
    detail: str = ""


class LLMClient:
    """Calls one role's model with retries, a shared cool-down, a cache and usage counts. Safe to use from several
    event loops.
    """

    def __init__(self, role: str, config: EndpointConfig, cache: ResponseCache | None = None):
        self.role, self.config, self.cache = role, config.from_environment(role), cache
        self.usage = UsageMeter(self.config)
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopState] = weakref.WeakKeyDictionary()
        self._refused_parameters: set[str] = set()
        self._failures_in_a_row = 0

    async def chat(self, messages: list[dict], *, seed: int | None = None, allow_empty: bool = False) -> Reply:
        """One answer to a conversation.

        Args:
            messages: OpenAI chat messages.
            seed: sampling seed, for endpoints that take one.
            allow_empty: an empty answer is an answer (a model under test), not a failure.

        Raises:
            RunAborted: the endpoint gave no answer to many calls in a row.
        """
        request = self._request(messages, seed)
        if (cached := self._cached(request)) is not None:
            return Reply(Outcome.OK, cached)
        reply = await self._call(request, allow_empty)
        self._remember(request, reply.outcome, reply.text)
        return reply

    async def structured(
        self, messages: list[dict], schema: type[Model], *, name: str, seed: int | None = None
    ) -> Structured[Model]:
        """One object of `schema`, asked for as JSON schema `name`, parsed leniently, range-checked, and asked for
        once more if wrong.

        Raises:
            RunAborted: the endpoint gave no answer to many calls in a row.
        """
        request = self._request(messages, seed)
        json_schema = {"name": name, "schema": _json_schema(schema), "strict": True}
        request["response_format"] = {"type": "json_schema", "json_schema": json_schema}
        if (cached := self._cached(request)) is not None:
            return Structured(Outcome.OK, parse_structured(cached, schema))
        detail, attempt = "", request
        for _ in range(2):
            reply = await self._call(attempt, allow_empty=True)
            if reply.outcome not in (Outcome.OK, Outcome.TRUNCATED) or reply.text is None:
                return Structured(reply.outcome, None, reply.detail)
            try:
                value = parse_structured(reply.text, schema)
            except ParseError as error:
                detail = f"{error}; got {reply.text[:120]!r}"
                again = (
                    f"That answer cannot be used: {error}. Answer with exactly one JSON object that fits the schema."
                )
                follow_up = [
                    {"role": "assistant", "content": reply.text or "(empty)"},
                    {"role": "user", "content": again},
                ]
                attempt = request | {"messages": [*messages, *follow_up]}
                continue
            self._remember(request, Outcome.OK, reply.text)
            return Structured(Outcome.OK, value)
        return Structured(Outcome.UNPARSED, None, detail)

    async def check(self) -> None:
        """Asks every endpoint for its models.

        Raises:
            UserError: an endpoint does not answer, or does not serve the role's model.
        """
        for url, client in self._state().clients.items():
            try:
                models = [model.id for model in (await client.with_options(timeout=10.0).models.list()).data]
            except (openai.APIError, httpx.HTTPError) as error:
                raise UserError(
                    f"{self.role}: no model server answers at {url} ({type(error).__name__}); start it, or correct "
                    f"base_url or {self.role.upper()}_API_BASE_URL"
                ) from error
            if self.config.model not in models:
                raise UserError(
                    f"{self.role}: {url} does not serve {self.config.model!r}; "
                    f"it serves {', '.join(models[:8])}; correct model"
                )

    def stats(self) -> dict[str, Any]:
        """Counts, tokens, cost and latencies so far."""
        return {"model": self.config.model} | self.usage.summary()

    async def close(self) -> None:
        """Closes the connections of the running loop."""
        state = self._loops.pop(asyncio.get_running_loop(), None)
        for client in state.clients.values() if state else ():
            await client.close()

    def _request(self, messages: list[dict], seed: int | None) -> dict[str, Any]:
        config = self.config
        request = {
            "model": config.model,
            "messages": messages,
            "temperature": config.temperature,
            "top_p": config.top_p,
        }
        request |= {"max_tokens": config.max_tokens, "seed": seed} | config.extra_body
        return {key: value for key, value in request.items() if value is not None}

    def _cached(self, request: dict[str, Any]) -> str | None:
        answer = self.cache.get(self.cache.key(request)) if self.cache else None
        self.usage.cached += answer is not None
        return answer

    def _remember(self, request: dict[str, Any], outcome: Outcome, text: str | None) -> None:
        if self.cache and outcome == Outcome.OK and text is not None:
            self.cache.put(self.cache.key(request), text)

    def _state(self) -> "_LoopState":
        loop = asyncio.get_running_loop()
        if loop not in self._loops:
            self._loops[loop] = _LoopState(self.role, self.config)
        return self._loops[loop]

    async def _call(self, request: dict[str, Any], allow_empty: bool) -> Reply:
        state, detail, attempt = self._state(), "", 0
        request = {key: value for key, value in request.items() if key not in self._refused_parameters}
        while attempt <= self.config.max_retries:
            await state.cool_down.wait()
            started = time.monotonic()
            try:
                async with state.slots, state.endpoint() as client:
                    # The SDK's typed method walks the whole request and answer in Python, milliseconds a call.
                    response = await client.post("/chat/completions", cast_to=httpx.Response, body=request)
                    completion = response.json()
            except openai.APIStatusError as error:
                status, detail = error.status_code, f"{error.status_code} {_message(error)}"
                if not is_retryable(status):
                    adapted = self._adapt(request, detail)
                    if adapted is None:
                        return self._client_error(detail)
                    request = adapted
                    continue
                wait = retry_after_seconds(error.response.headers.get("retry-after"))
                if status == 429:
                    state.cool_down.extend(wait if wait is not None else backoff_seconds(attempt))
            except (openai.APIConnectionError, httpx.HTTPError, ValueError) as error:
                detail, wait = f"{type(error).__name__}: {error}", None
            else:
                return self._reply(completion, time.monotonic() - started, allow_empty)
            attempt += 1
            self.usage.retries += 1
            await state.cool_down.sleep(wait if wait is not None else backoff_seconds(attempt - 1))
        return self._give_up(detail)

    def _reply(self, completion: dict[str, Any], seconds: float, allow_empty: bool) -> Reply:
        self._failures_in_a_row = 0
        choice = (completion.get("choices") or [{}])[0]
        message = choice.get("message") or {}
        text, finish = message.get("content"), choice.get("finish_reason")
        if finish == "content_filter":
            reply = Reply(Outcome.FILTERED, None, "content filter")
        elif message.get("refusal"):
            reply = Reply(Outcome.REFUSED, None, message["refusal"])
        elif not text and not (allow_empty and message):
            reply = Reply(Outcome.UNPARSED, None, "the model gave an empty answer")
        else:
            reply = Reply(Outcome.TRUNCATED if finish == "length" else Outcome.OK, text or "")
        usage = completion.get("usage") or {}
        tokens = usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0
        self.usage.add(reply.outcome, *tokens, seconds)
        return reply

    def _adapt(self, request: dict[str, Any], detail: str) -> dict[str, Any] | None:
        """The request without a parameter that the endpoint says it does not take, or with fewer tokens; None if that
        is not it.
        """
        if _CONTEXT.search(detail):
            tokens = request.get("max_tokens")
            return request | {"max_tokens": tokens // 2} if tokens and tokens > 16 else None
        for name in _ADAPTABLE:
            if name in request and name in detail:
                self._refused_parameters.add(name)
                return {key: value for key, value in request.items() if key != name}
        return None

    def _client_error(self, detail: str) -> Reply:
        """A 4xx that calling again will not mend."""
        self._failures_in_a_row = 0
        full = bool(_CONTEXT.search(detail))
        outcome = Outcome.TRUNCATED if full else Outcome.TRANSPORT
        self.usage.add(outcome, 0, 0, 0.0)
        return Reply(outcome, None, f"{CONTEXT_FULL}: {detail}" if full else detail)

    def _give_up(self, detail: str) -> Reply:
        self.usage.add(Outcome.TRANSPORT, 0, 0, 0.0)
        self._failures_in_a_row += 1
        if self._failures_in_a_row >= BREAKER_FAILURES:
            raise RunAborted(
                f"{self.role}: {self._failures_in_a_row} calls in a row got no answer from "
                f"{', '.join(self.config.urls())} after {self.config.max_retries} retries each, the last: {detail}; "
                "check the server, then run the same command again"
            )
        return Reply(Outcome.TRANSPORT, None, detail)


class _LoopState:
    """What belongs to one event loop: connections, slots, cool-down, load of each endpoint."""

    def __init__(self, role: str, config: EndpointConfig):
        self.slots = asyncio.Semaphore(config.concurrency)
        self.cool_down = CoolDown()
        limits = httpx.Limits(max_connections=config.concurrency + 8, max_keepalive_connections=config.concurrency + 8)
        self.clients = {
            url: openai.AsyncOpenAI(
                api_key=api_key(role),
                base_url=url,
                timeout=config.timeout_s,
                max_retries=0,
                http_client=httpx.AsyncClient(limits=limits, timeout=config.timeout_s),
            )
            for url in config.urls()
        }
        self._load = dict.fromkeys(self.clients, 0)

    def endpoint(self) -> "_Lease":
        """The least loaded endpoint, for one call."""
        return _Lease(self, min(self._load, key=self._load.__getitem__))


class _Lease:
    def __init__(self, state: _LoopState, url: str):
        self._state, self._url = state, url

    async def __aenter__(self) -> openai.AsyncOpenAI:
        self._state._load[self._url] += 1
        return self._state.clients[self._url]

    async def __aexit__(self, *_: object) -> None:
        self._state._load[self._url] -= 1


@lru_cache
def _json_schema(schema: type[BaseModel]) -> dict[str, Any]:
    return schema.model_json_schema()


def _message(error: openai.APIStatusError) -> str:
    body = error.body if isinstance(error.body, dict) else {}
    return str(body.get("message") or body.get("detail") or error.message)[:300]
