"""HTTP to OpenAI-compatible servers: one request, one JSON object or one `CallFailure`.

The `openai` package with its aiohttp client carries the requests. Its answers are taken as bytes and it tries nothing
again: what an answer is worth is decided here. The API key is sent and never shown: every message is without it.
"""

import asyncio
import json
import math
from collections.abc import AsyncGenerator
from functools import cache
from typing import Any

import aiohttp
import httpx2
from openai import APIStatusError, AsyncOpenAI, DefaultAioHttpClient, Omit, OpenAIError

from safer_steer.addresses import is_loopback
from safer_steer.llm.failures import CallFailure, failure_in
from safer_steer.llm.replies import error_in, quoted
from safer_steer.llm.retry import is_retryable, retry_after_seconds
from safer_steer.secrets import is_stand_in

CONNECT_S = 30.0  # a host that does not even take the connection is given up sooner than a slow answer
CHECK_S = 10.0  # for a list of models
# The package names most failures; a status line that is none, a wrong proxy and a wrong header come as they are.
BROKEN = (OpenAIError, aiohttp.ClientError, httpx2.InvalidURL, OSError, ValueError)
NO_SUCH_PAGE = (404, 405, 501)


class _Client(AsyncOpenAI):
    """Sends no header that the package takes from the environment (OPENAI_ORG_ID, ...) or makes of this machine."""

    @property
    def default_headers(self) -> dict[str, str | Omit]:
        return {"Accept": "application/json", "Content-Type": "application/json", "User-Agent": self.user_agent}


class Transport:
    """The connections of one event loop. Pool size is not limited here: callers limit the calls at once."""

    def __init__(self, key: str | None, timeout_s: float):
        self._key, self._timeout_s = key, timeout_s
        self._open: dict[str, tuple[AsyncGenerator[_Client], _Client]] = {}  # by base URL

    async def complete(self, base_url: str, body: dict[str, Any]) -> dict[str, Any]:
        """One chat completion.

        Raises:
            CallFailure: no answer, or an error for an answer.
        """
        return await self._ask(base_url, body)

    async def models(self, base_url: str, model: str) -> list[str] | None:
        """The names of the models that a server offers; None when it lists none but takes chat completions.

        Args:
            base_url: the server's.
            model: what an empty request for a completion names, to see whether there is such an address.

        Raises:
            CallFailure: no such server.
        """
        try:
            answer = await self._ask(base_url, None, CHECK_S)
        except CallFailure as failure:
            if failure.status not in NO_SUCH_PAGE:
                raise
            try:
                await self._ask(base_url, {"model": model, "messages": []}, CHECK_S)
            except CallFailure as refusal:
                if refusal.status not in (400, 422):
                    raise
            return None
        try:
            return [str(item["id"]) for item in answer["data"]]
        except (KeyError, TypeError) as error:
            raise CallFailure(None, f"no list of models, but {quoted(json.dumps(answer))}") from error

    async def checkpoints(self, base_url: str, model: str) -> list[str]:
        """Where a vLLM server says that its model's files are, the model's own first; [] of any other server.

        Raises:
            CallFailure: it may answer another time.
        """
        try:
            answer = await self._ask(base_url, None, CHECK_S)
        except CallFailure as failure:
            if is_retryable(failure.status) and failure.status not in NO_SUCH_PAGE:
                raise
            return []
        data = answer.get("data")
        items = [item for item in (data if isinstance(data, list) else []) if isinstance(item, dict)]
        ours = sorted((item for item in items if item.get("owned_by") == "vllm"), key=lambda i: i.get("id") != model)
        return [item["root"] for item in ours if isinstance(item.get("root"), str)]

    async def close(self) -> None:
        """Closes the connections, as the end of their event loop does."""
        while self._open:
            lifetime, _ = self._open.popitem()[1]
            await lifetime.aclose()

    async def _client(self, base_url: str) -> _Client:
        if base_url not in self._open:
            lifetime = _connected(base_url, self._key, min(CONNECT_S, self._timeout_s))
            self._open[base_url] = lifetime, await anext(lifetime)
        return self._open[base_url][1]

    async def _ask(self, base_url: str, body: dict[str, Any] | None, most_s: float = math.inf) -> dict[str, Any]:
        """A completion; without a body the list of models."""
        try:
            answer = _object_in(await self._send(base_url, body, min(most_s, self._timeout_s)))
            problem = error_in(answer) if body else None
            if isinstance(problem, str):
                raise CallFailure(None, problem)
            if problem is not None:  # gateways pass an upstream's error on as a 200
                raise failure_in(problem)
        except CallFailure as failure:
            if self._key and not is_stand_in(self._key):
                failure.text = failure.text.replace(self._key, "[key]")
            raise
        return answer

    async def _send(self, base_url: str, body: dict[str, Any] | None, timeout_s: float) -> bytes:
        response: httpx2.Response
        how: dict[str, Any] = {"cast_to": httpx2.Response}
        if not self._key:
            how["options"] = {"headers": {"Authorization": Omit()}}
        try:
            async with asyncio.timeout(timeout_s):
                client = await self._client(base_url)
                if body is None:
                    response = await client.get("models", **how)
                else:
                    response = await client.post("chat/completions", content=json.dumps(body).encode(), **how)
            if response.status_code == 200:
                return response.content
            error: Any = response.text
        except APIStatusError as refusal:
            response, error = refusal.response, refusal.body
        except BROKEN as broken:
            cause = _cause(broken)
            late = isinstance(cause, TimeoutError)
            words = f"no answer within {timeout_s:g} s" if late else f"{type(cause).__name__}: {cause}"
            raise CallFailure(None, words, unreachable=isinstance(cause, aiohttp.ClientConnectorError)) from broken
        if response.is_redirect:
            error = f"redirects to {response.headers.get('location', 'nowhere')}; correct base_url"
        error = error or response.text or response.reason_phrase or "no reason given"
        raise failure_in(error, response.status_code, retry_after_seconds(response.headers))


async def _connected(base_url: str, key: str | None, connect_s: float) -> AsyncGenerator[_Client]:
    """A client that is closed with its generator, and so by an event loop at its end.

    Proxies are those of the environment (HTTPS_PROXY, NO_PROXY, ...), none for this machine's own servers.
    """
    http = DefaultAioHttpClient(
        limits=httpx2.Limits(max_connections=0),  # without a limit, in aiohttp's words
        follow_redirects=False,
        trust_env=not is_loopback(base_url),
        verify=_ssl_context(),
    )
    timeout = httpx2.Timeout(None, connect=connect_s)
    async with _Client(
        api_key=key or "none", base_url=base_url, max_retries=0, timeout=timeout, http_client=http
    ) as client:
        yield client


def _object_in(content: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        beginning = quoted(content[:400].decode("utf-8", "replace"))
        raise CallFailure(None, f"the answer is no JSON object, but {beginning}")
    return answer


def _cause(error: BaseException) -> BaseException:
    """What broke, below the names that the package and its HTTP layer give it."""
    while error.__cause__ and not isinstance(error, aiohttp.ClientError | httpx2.DecodingError | TimeoutError):
        error = error.__cause__
    return error


_ssl_context = cache(httpx2.create_ssl_context)  # the system's authorities, or those of SSL_CERT_FILE and SSL_CERT_DIR
