"""One try of a call, within all limits: place -> rate -> endpoint -> HTTP. What belongs to one event loop is here."""

import time
from typing import Any

from safer_steer.llm.config import EndpointConfig
from safer_steer.llm.endpoints import Endpoint, EndpointPool
from safer_steer.llm.limits import AdaptiveLimit, RateLimit
from safer_steer.llm.replies import tokens_of
from safer_steer.llm.transport import CallFailure, Transport

CHARS_PER_TOKEN = 4  # of English text; only for the estimate before the first answer tells better
ENDPOINT_STATUS = (401, 402, 403, 404)  # the endpoint refuses everybody, not this request


class Traffic:
    """Connections, endpoints and limits of one role in one event loop."""

    def __init__(self, config: EndpointConfig, key: str | None):
        self.transport = Transport(key, config.timeout_s)
        self.pool = EndpointPool(config.urls(), config.retry_after_cap_s)
        self.slots = AdaptiveLimit(config.concurrency)
        self.rates = RateLimit(config.requests_per_minute, config.tokens_per_minute)
        self._tokens_per_call = 0.0  # running mean

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
                completion = await self.transport.complete(endpoint.url, body)
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
