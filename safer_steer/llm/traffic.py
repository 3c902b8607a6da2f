"""One try of a call, within all limits: place -> rate -> endpoint -> HTTP. What belongs to one event loop is here.

Text is data: where the tokenizer behind an endpoint is known (the config's `tokenizer`, or a vLLM server that names its
checkpoint), the spelling of its special tokens in messages is broken before they are sent.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from safer_steer.errors import UserError
from safer_steer.llm.config import EndpointConfig
from safer_steer.llm.endpoints import Endpoint, EndpointPool
from safer_steer.llm.failures import CallFailure
from safer_steer.llm.limits import AdaptiveLimit, RateLimit
from safer_steer.llm.replies import tokens_of
from safer_steer.llm.transport import Transport
from safer_steer.plain_text import names_of_checkpoint, plain_messages

CHARS_PER_TOKEN = 4  # of English text; only for the estimate before the first answer tells better
ENDPOINT_STATUS = (401, 402, 403, 404)  # the endpoint refuses everybody, not this request


class Traffic:
    """Connections, endpoints and limits of one role in one event loop; `no_tokenizer` is told base URL and checkpoint
    of a vLLM server whose tokenizer is not found here.
    """

    def __init__(self, config: EndpointConfig, key: str | None, no_tokenizer: Callable[[str, str], None]):
        self.transport = Transport(key, config.timeout_s)
        self.pool = EndpointPool(config.urls(), config.retry_after_cap_s)
        self.slots = AdaptiveLimit(config.concurrency)
        self.rates = RateLimit(config.requests_per_minute, config.tokens_per_minute)
        self._tokens_per_call = 0.0  # running mean
        self._model, self._tokenizer, self._no_tokenizer = config.model, config.tokenizer, no_tokenizer
        self._special: dict[str, frozenset[str]] = {}  # base URL -> special tokens of its tokenizer, once it is known
        self._asking = asyncio.Lock()

    async def attempt(self, body: dict[str, Any], avoid: str | None) -> tuple[dict[str, Any], float]:
        """Sends a request once.

        Args:
            body: the request.
            avoid: base URL that failed this call before.

        Returns:
            The completion, and the seconds from sending it to its last byte.

        Raises:
            CallFailure: no answer; `endpoint` on it is the base URL that failed.
        """
        await self.slots.acquire()
        try:
            estimate = 0.0
            if not self.rates.unlimited:
                estimate = self._tokens_per_call or _rough_tokens(body)
                await self.rates.admit(estimate, self.pool.ready)
            endpoint = await self.pool.take(avoid)
            started = time.monotonic()
            try:
                completion = await self.transport.complete(endpoint.url, await self._as_text(endpoint.url, body))
            except CallFailure as failure:
                failure.endpoint = endpoint.url
                self._note_failure(endpoint, failure, started)
                self.rates.correct(estimate, 0.0)
                raise
            finally:
                self.pool.give_back(endpoint)
            self.pool.answered(endpoint)
            self.slots.grow()
            if not self.rates.unlimited:
                self._note_tokens(estimate, completion)
            return completion, time.monotonic() - started
        finally:
            self.slots.release()

    async def _as_text(self, url: str, body: dict[str, Any]) -> dict[str, Any]:
        """The request with texts in which no special token of the endpoint's tokenizer is spelled."""
        async with self._asking:
            if url not in self._special:
                self._special[url] = await self._special_tokens(url)
        names = self._special[url]
        return body | {"messages": plain_messages(body["messages"], names)} if names else body

    async def _special_tokens(self, url: str) -> frozenset[str]:
        """Empty where the tokenizer is not known.

        Raises:
            UserError: the configured one has no files.
            CallFailure: the endpoint could not say what it serves.
        """
        if self._tokenizer:
            if (names := await asyncio.to_thread(names_of_checkpoint, self._tokenizer)) is None:
                raise UserError(
                    f"tokenizer {self._tokenizer}: no tokenizer files there; give the folder or hub id of the model "
                    f"that {url} serves, or leave tokenizer out"
                )
            return names
        checkpoints = await self.transport.checkpoints(url, self._model)
        for checkpoint in checkpoints:
            if names := await asyncio.to_thread(names_of_checkpoint, checkpoint):
                return names
        if checkpoints:
            self._no_tokenizer(url, checkpoints[0])
        return frozenset()

    def _note_failure(self, endpoint: Endpoint, failure: CallFailure, started: float) -> None:
        if failure.status == 429:
            self.pool.rate_limited(endpoint, failure.retry_after)
            self.slots.shrink(started)
        elif failure.status is None or failure.status >= 500 or failure.status in ENDPOINT_STATUS:
            self.pool.failed(endpoint)
        else:
            self.pool.answered(endpoint)

    def _note_tokens(self, estimate: float, completion: dict[str, Any]) -> None:
        if (tokens := tokens_of(completion)) is not None:
            used = float(sum(tokens))
            self.rates.correct(estimate, used)
            self._tokens_per_call += (used - self._tokens_per_call) * (0.1 if self._tokens_per_call else 1.0)


def _rough_tokens(body: dict[str, Any]) -> float:
    """Prompt and answer of a request, in tokens; pictures count as nothing until an answer tells."""
    contents = [message.get("content") or "" for message in body["messages"]]
    parts = [[{"text": content}] if isinstance(content, str) else content for content in contents]
    letters = sum(len(part.get("text", "")) for content in parts for part in content)
    return letters / CHARS_PER_TOKEN + (body.get("max_tokens") or body.get("max_completion_tokens") or 0)
