"""HTTP to OpenAI-compatible servers: one request, one JSON object or one `CallFailure`.

Plain aiohttp: at hundreds of calls at once the official SDK and httpx take more processor time than the calls
themselves (benchmarks/llm_client.py). The API key is sent and never shown: it is struck out of every message.
"""

import json
import ssl
from functools import lru_cache
from typing import Any

import aiohttp
import httpx

from safer_steer.llm.addresses import proxy_of
from safer_steer.llm.error_bodies import ErrorBody
from safer_steer.llm.replies import error_in, quoted
from safer_steer.llm.retry import retry_after_seconds
from safer_steer.secrets import is_stand_in

CONNECT_S = 30.0  # a host that does not even take the connection is given up sooner than a slow answer
CHECK_S = 10.0  # for a list of models
NO_SUCH_PAGE = (404, 405, 501)
MAX_MESSAGE = 500  # characters of a server's error text that are kept


class CallFailure(Exception):
    """A request without an answer.

    Attributes:
        status: HTTP status, None when no whole response arrived.
        message: what the server said, or what broke, at most 500 characters.
        text: the same at full length, to look into.
        parameter: the request's parameter that the server objects to, "" when it names none.
        code: the server's error code, "" when it gives none.
        retry_after: seconds the server asks to wait, or None.
        unreachable: nobody took the connection: the server is not there.
        endpoint: base URL of the server, None before it is known.
    """

    def __init__(
        self,
        status: int | None,
        message: str,
        *,
        parameter: str = "",
        code: str = "",
        retry_after: float | None = None,
        unreachable: bool = False,
    ):
        self.status, self.text, self.unreachable = status, message, unreachable
        self.message = message = message[:MAX_MESSAGE]
        self.parameter, self.code, self.retry_after = parameter, code, retry_after
        self.endpoint: str | None = None
        super().__init__(f"{status} {message}" if status else message)


class Transport:
    """The connections of one event loop. Pool size is not limited here: callers limit the calls at once."""

    def __init__(self, key: str | None, timeout_s: float):
        self._key, self._timeout_s = key, timeout_s
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        self._connector = aiohttp.TCPConnector(limit=0, ssl=_ssl_context())
        self._session = aiohttp.ClientSession(
            connector=self._connector,
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=timeout_s, sock_connect=min(CONNECT_S, timeout_s)),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def complete(self, base_url: str, body: dict[str, Any]) -> dict[str, Any]:
        """One chat completion.

        Raises:
            CallFailure: no answer, or an error for an answer.
        """
        answer = await self._send("POST", f"{base_url.rstrip('/')}/chat/completions", json.dumps(body).encode())
        if isinstance(problem := error_in(answer), str):
            raise CallFailure(None, self._hide(problem))
        if problem is not None:  # gateways pass an upstream's error on as a 200
            error = ErrorBody(problem)
            raise CallFailure(error.status, self._hide(error.message), parameter=error.parameter, code=error.code)
        return answer

    async def models(self, base_url: str, model: str) -> list[str] | None:
        """The names of the models that a server offers; None when it lists none but takes chat completions.

        Args:
            base_url: the server's.
            model: what an empty request for a completion names, to see whether there is such an address.

        Raises:
            CallFailure: no such server.
        """
        base, timeout = base_url.rstrip("/"), min(CHECK_S, self._timeout_s)
        try:
            answer = await self._send("GET", f"{base}/models", None, timeout)
        except CallFailure as failure:
            if failure.status not in NO_SUCH_PAGE:
                raise
            try:
                body = json.dumps({"model": model, "messages": []}).encode()
                await self._send("POST", f"{base}/chat/completions", body, timeout)
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
            CallFailure: nobody is there, or it has no time now.
        """
        try:
            answer = await self._send("GET", f"{base_url.rstrip('/')}/models", None, min(CHECK_S, self._timeout_s))
        except CallFailure as failure:
            if failure.unreachable or failure.status in (429, 502, 503, 504):
                raise
            return []
        data = answer.get("data")
        items = [item for item in (data if isinstance(data, list) else []) if isinstance(item, dict)]
        ours = sorted((item for item in items if item.get("owned_by") == "vllm"), key=lambda i: i.get("id") != model)
        return [item["root"] for item in ours if isinstance(item.get("root"), str)]

    async def close(self) -> None:
        """Closes the connections."""
        await self._session.close()

    def abandon(self) -> None:
        """Lets go of connections whose event loop has ended without `close`."""
        self._session.detach()
        self._connector.__exit__()  # the one way to close it without an event loop

    def __del__(self) -> None:
        if not self._session.closed:
            self.abandon()

    async def _send(self, method: str, url: str, body: bytes | None, timeout: float | None = None) -> dict[str, Any]:
        limit = aiohttp.ClientTimeout(total=timeout) if timeout else self._session.timeout
        try:
            async with self._session.request(
                method, url, data=body, proxy=proxy_of(url), allow_redirects=False, timeout=limit
            ) as response:
                content = await response.read()
        except TimeoutError as error:
            raise CallFailure(None, f"no answer within {timeout or self._timeout_s:g} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:  # ValueError: a header or address aiohttp refuses
            absent = isinstance(error, aiohttp.ClientConnectorError)
            raise CallFailure(None, self._hide(f"{type(error).__name__}: {error}"), unreachable=absent) from error
        if response.status != 200:
            raise self._failure(response, content)
        try:
            answer = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise CallFailure(None, self._hide(f"the answer is no JSON, but {_beginning(content)}")) from error
        if not isinstance(answer, dict):
            raise CallFailure(None, self._hide(f"the answer is no JSON object, but {_beginning(content)}"))
        return answer

    def _failure(self, response: aiohttp.ClientResponse, content: bytes) -> CallFailure:
        status, text = response.status, content.decode("utf-8", "replace")
        if 300 <= status < 400:
            text = f"redirects to {response.headers.get('location', 'nowhere')}; correct base_url"
        try:
            error = ErrorBody(json.loads(text))
        except (ValueError, RecursionError):
            error = ErrorBody(text)
        return CallFailure(
            status,
            self._hide(error.message or response.reason or "no reason given"),
            parameter=error.parameter,
            code=error.code,
            retry_after=retry_after_seconds(response.headers),
        )

    def _hide(self, text: str) -> str:
        return text.replace(self._key, "[key]") if self._key and not is_stand_in(self._key) else text


def _beginning(content: bytes) -> str:
    return quoted(content[:400].decode("utf-8", "replace"))


@lru_cache(maxsize=1)
def _ssl_context() -> ssl.SSLContext:
    return httpx.create_ssl_context()  # certifi's authorities, or those of SSL_CERT_FILE and SSL_CERT_DIR
