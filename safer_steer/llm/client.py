"""The LLM client: one object for a role, asynchronous, against any OpenAI-compatible endpoint; every call ends in one
outcome.

Input: chat messages. Output: `Reply` (text) or `Structured` (a validated object). What passes is tried again, 400s are
not; parameters an endpoint refuses are left out once and remembered; contexts that overflow end as `truncated`.
"""

import asyncio
import json
import math
import sys
import time
from dataclasses import astuple
from typing import Any, TypeVar

from pydantic import BaseModel

from safer_steer.addresses import with_version
from safer_steer.errors import RunAborted, UserError
from safer_steer.llm.adaptation import (
    Adaptation,
    Trial,
    is_context_full,
    is_filtered,
    lengthened,
    names_parameter,
    shortened,
)
from safer_steer.llm.breaker import QUESTION, Breaker
from safer_steer.llm.cache import ResponseCache
from safer_steer.llm.config import EndpointConfig, api_key
from safer_steer.llm.failures import CallFailure
from safer_steer.llm.parsing import ParseError, parse_structured
from safer_steer.llm.pictures import has_pictures, takes_no_pictures, without_pictures
from safer_steer.llm.replies import CONTEXT_FULL, Reply, Structured, read_reply, tokens_of
from safer_steer.llm.retry import backoff_seconds, is_retryable
from safer_steer.llm.structured import ask, response_format
from safer_steer.llm.traffic import ENDPOINT_STATUS, Traffic
from safer_steer.llm.usage import UsageMeter
from safer_steer.progress import show_note
from safer_steer.verdict import Outcome

Model = TypeVar("Model", bound=BaseModel)
NO_QUOTA = "insufficient_quota"  # a 429 that does not pass
WHOLE = "/whole"  # of the cache: answers that are more than their text
CHECK_RETRIES = 3  # before the first call, where a person still looks on
BLIND = 3  # requests with pictures that are refused for the pictures, and none answered: the model cannot see


class LLMClient:
    """Calls one role's model with retries, limits, a cache and usage counts. Safe to use from several event loops."""

    def __init__(self, role: str, config: EndpointConfig, cache: ResponseCache | None = None):
        self.role, self.config, self.cache = role, config.from_environment(role), cache
        self.usage = UsageMeter(role, self.config)
        self._adaptation, self._breaker = Adaptation(self.config), Breaker(role, self.config)
        self._pictures_refused, self._pictures_taken = 0, False
        self._no_tokenizer: dict[str, str] = {}  # base URL -> checkpoint that it serves, unknown here
        self._loops: dict[asyncio.AbstractEventLoop, Traffic] = {}
        show_note(self.usage)

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
        # The seed tells equal requests of two dialogues apart, also where the endpoint is not sent it.
        key = self.cache.key(request | {"seed": seed} | self._opening) if self.cache else ""
        if (cached := self._cached_reply(key)) is not None:
            self.usage.cached += 1
            return cached
        reply = await self._call(request, allow_empty)
        if reply.cut and reply.text is None and (longer := lengthened(request)) != request:
            reply = await self._call(longer, allow_empty)
        self._remember_reply(key, reply)
        return reply

    async def structured(
        self, messages: list[dict], schema: type[Model], *, name: str, seed: int | None = None
    ) -> Structured[Model]:
        """One object of `schema`, asked for as JSON schema `name`, parsed leniently, range-checked, and asked for
        once more if wrong.

        Raises:
            RunAborted: the endpoint gave no answer to many calls in a row.
        """
        request = self._request(messages, seed) | {"response_format": response_format(schema, name)}
        how = {"structured": self.config.structured} if self.config.structured != "schema" else {}
        key = self.cache.key(request | how | self._opening) if self.cache else ""
        if (cached := self._cached(key)) is not None:
            try:
                value = parse_structured(cached, schema)
            except ParseError:  # the schema's checks have changed since
                pass
            else:
                self.usage.cached += 1
                return Structured(Outcome.OK, value)
        result, text = await ask(lambda body: self._call(body, allow_empty=True), request, schema)
        self._remember(key, text)
        return result

    async def check(self) -> None:
        """Asks every endpoint for its models.

        Raises:
            UserError: an endpoint does not answer, or does not serve the role's model.
        """
        traffic = self._traffic()
        await asyncio.gather(*(self._check(traffic, url) for url in self.config.urls()))

    def stats(self) -> dict[str, Any]:
        """Counts, tokens, cost and latencies so far, and what of the requests the endpoint did not take."""
        changed = self._adaptation.record()
        if self._no_tokenizer:
            checkpoints = ", ".join(sorted(set(self._no_tokenizer.values())))
            changed["special tokens in texts"] = f"sent as they are, no tokenizer of {checkpoints} was found"
        return {"model": self.config.model} | self.usage.summary() | ({"changed": changed} if changed else {})

    async def close(self) -> None:
        """Closes the connections of the running loop."""
        if traffic := self._loops.pop(asyncio.get_running_loop(), None):
            await traffic.transport.close()

    def _request(self, messages: list[dict], seed: int | None) -> dict[str, Any]:
        config = self.config
        request = {
            "model": config.model,
            "messages": messages if config.pictures else without_pictures(messages),
            "temperature": config.temperature,
            "top_p": config.top_p,
            "max_tokens": config.max_tokens,
            "seed": seed,
        } | config.extra_body
        return {key: value for key, value in request.items() if value is not None and key not in config.leave_out}

    @property
    def _opening(self) -> dict[str, str]:
        """What of the config changes how an answer is read, for the cache."""
        return {"thought_opening": self.config.thought_opening} if self.config.thought_opening else {}

    def _cached(self, key: str) -> str | None:
        return self.cache.get(key) if self.cache else None

    def _cached_reply(self, key: str) -> Reply | None:
        if (text := self._cached(key)) is not None:
            return Reply(Outcome.OK, text)
        if (parts := self._cached(key + WHOLE)) is None:
            return None
        outcome, *others = json.loads(parts)
        return Reply(Outcome(outcome), *others)

    def _remember_reply(self, key: str, reply: Reply) -> None:
        """Keeps an answer, also one that was cut and the model's own refusal, which a user would have seen as well."""
        if reply.outcome == Outcome.OK and not reply.reasoning:
            self._remember(key, reply.text)
        elif reply.text is not None or reply.outcome == Outcome.REFUSED:
            self._remember(key + WHOLE, json.dumps(astuple(reply)))

    def _remember(self, key: str, text: str | None) -> None:
        if self.cache and text is not None:
            self.cache.put(key, text)

    def _traffic(self) -> Traffic:
        loop = asyncio.get_running_loop()
        if loop not in self._loops:
            running = {other: traffic for other, traffic in self._loops.items() if not other.is_closed()}
            self._loops = running | {loop: Traffic(self.config, api_key(self.role), self._without_tokenizer)}
        return self._loops[loop]

    def _without_tokenizer(self, url: str, checkpoint: str) -> None:
        """Says once, and in the record, that special tokens spelled in texts reach this server as such."""
        if url not in self._no_tokenizer:
            self._no_tokenizer[url] = checkpoint
            print(
                f"warning: {self.role}: {url} serves {checkpoint}, whose tokenizer is not found here, so special "
                "tokens spelled in texts are sent as they are; set the role's tokenizer: to its folder or hub id",
                file=sys.stderr,
                flush=True,
            )

    async def _call(self, request: dict[str, Any], allow_empty: bool) -> Reply:
        """Tries until there is an answer, an error that trying again will not mend, or no try left."""
        traffic, tries, avoid, limited_since, down_since = self._traffic(), 0, None, None, None
        trial = Trial(self._adaptation.fit)
        while True:
            body = trial.fit.joined(self._adaptation.fit).apply(request)
            try:
                completion, seconds = await traffic.attempt(body, avoid)
            except CallFailure as error:
                failure = error
            else:
                self._adaptation.confirm(trial.fit)
                self._pictures_taken = self._pictures_taken or has_pictures(request["messages"])
                return self._answered(completion, seconds, allow_empty)
            if has_pictures(body["messages"]) and takes_no_pictures(failure) and not names_parameter(body, failure):
                return self._blind(failure)
            if self._passes(failure):
                self._breaker.check()
            if failure.status == 429 and failure.code != NO_QUOTA:
                # The endpoint is alive and names its pause: waiting for it takes no try away.
                limited_since = limited_since or time.monotonic()
                if time.monotonic() - limited_since > self.config.rate_limit_wait_s:
                    return await self._failed(traffic, request, failure)
            elif is_context_full(failure):
                shorter = shortened(request, failure)
                if shorter is None:
                    return await self._failed(traffic, request, failure)
                request = shorter
            elif trial.next(body, failure, last_try=tries >= self.config.max_retries):
                pass
            elif self._passes(failure):
                # A server that is started again is not there for a while, and no fault of the call.
                down_since = (down_since or time.monotonic()) if failure.unreachable else None
                waited = time.monotonic() - down_since if down_since else math.inf
                if tries >= self.config.max_retries and (not tries or waited > self.config.outage_wait_s):
                    return await self._failed(traffic, request, failure)
                tries += 1
                pause = failure.retry_after or backoff_seconds(tries - 1)
                await asyncio.sleep(min(pause, self.config.retry_after_cap_s))
            else:
                return await self._failed(traffic, request, failure)
            avoid = failure.endpoint
            self.usage.retried(failure.status)

    def _passes(self, failure: CallFailure) -> bool:
        """Whether another try may succeed, perhaps at another endpoint."""
        elsewhere = failure.status in ENDPOINT_STATUS and len(self.config.urls()) > 1
        return (is_retryable(failure.status) and failure.code != NO_QUOTA) or elsewhere

    def _answered(self, completion: dict[str, Any], seconds: float, allow_empty: bool) -> Reply:
        self._breaker.answered()
        reply = read_reply(completion, allow_empty, self.config.thought_opening)
        self.usage.answered(reply.outcome, tokens_of(completion), seconds)
        return reply

    async def _failed(self, traffic: Traffic, request: dict[str, Any], failure: CallFailure) -> Reply:
        """The end of a call without an answer."""
        outcome, detail = Outcome.TRANSPORT, str(failure)
        refused = failure.status in ENDPOINT_STATUS or failure.code == NO_QUOTA
        if failure.status in (401, 403):
            detail += f"; the key comes from {self.role.upper()}_API_KEY, else OPENAI_API_KEY"
        elif failure.status == 404 and any(map(with_version, self.config.urls())):
            detail += "; base_url usually ends in /v1"
        if is_filtered(failure):
            outcome, refused = Outcome.FILTERED, False
        elif is_context_full(failure):
            outcome, detail = Outcome.TRUNCATED, f"{CONTEXT_FULL}: {detail}"
        elif not refused and 400 <= (failure.status or 0) < 500 and not is_retryable(failure.status):
            outcome = Outcome.BAD_REQUEST
        self.usage.failed(outcome)
        if outcome not in (Outcome.TRANSPORT, Outcome.BAD_REQUEST):
            self._breaker.answered()
        elif self._breaker.refused() if outcome == Outcome.BAD_REQUEST else self._breaker.failed():
            await self._ask_plainly(traffic, request, detail)
        return Reply(outcome, None, detail)

    async def _ask_plainly(self, traffic: Traffic, request: dict[str, Any], detail: str) -> None:
        """After many failures in a row: whether the endpoint answers anything at all.

        Raises:
            RunAborted: it does not.
        """
        plain = {key: value for key, value in request.items() if key != "response_format"} | {"messages": QUESTION}
        try:
            await traffic.attempt(self._adaptation.fit.apply(plain), None)
        except CallFailure:
            self._breaker.open(detail)
        self._breaker.answered()

    def _blind(self, failure: CallFailure) -> Reply:
        """The end of a call whose pictures the model does not take; trying again does not change that."""
        self._pictures_refused += 1
        self.usage.failed(Outcome.BAD_REQUEST)
        detail = f"{self.config.model} does not take pictures ({failure})"
        if self._pictures_refused >= BLIND and not self._pictures_taken:
            raise RunAborted(
                f"{self.role}: {detail}; name a model that does, or set pictures: false for this role: it then gets "
                "the text alone, and the record says so"
            )
        return Reply(Outcome.BAD_REQUEST, None, detail)

    async def _check(self, traffic: Traffic, url: str) -> None:
        variable = f"{self.role.upper()}_API"
        try:
            models = await self._models(traffic, url)
        except CallFailure as failure:
            advice = f"start it, or correct base_url or {variable}_BASE_URL"
            if failure.status in (401, 403):
                advice = f"set {variable}_KEY"
            elif longer := await self._answers_at(traffic, with_version(url)):
                advice = (
                    f"base_url has no version: a server answers at {longer}, set base_url or {variable}_BASE_URL to it"
                )
            elif _may_pass(failure):
                advice = "this may pass: wait, then run the same command again; if it does not, look at the server"
            raise UserError(f"{self.role}: no model server answers at {url} ({failure}); {advice}") from failure
        # Gemini lists "models/NAME"; None: the endpoint does not tell.
        if models is not None and not {self.config.model, f"models/{self.config.model}"} & set(models):
            raise UserError(
                f"{self.role}: {url} does not serve {self.config.model!r}; "
                f"it serves {', '.join(models[:8]) or 'none'}; correct model"
            )

    async def _models(self, traffic: Traffic, url: str) -> list[str] | None:
        """The models that an endpoint lists, as `Transport.models`; what passes is waited out for a few tries."""
        attempt = 0
        while True:
            try:
                return await traffic.transport.models(url, self.config.model)
            except CallFailure as failure:
                if not _may_pass(failure) or attempt >= min(self.config.max_retries, CHECK_RETRIES):
                    raise
                pause = failure.retry_after or backoff_seconds(attempt)
            await asyncio.sleep(min(pause, self.config.retry_after_cap_s))
            attempt += 1

    async def _answers_at(self, traffic: Traffic, url: str | None) -> str | None:
        """The address, where a server answers there."""
        try:
            if url:
                await traffic.transport.models(url, self.config.model)
        except CallFailure:
            return None
        return url


def _may_pass(failure: CallFailure) -> bool:
    """Whether an endpoint that is there may answer another time."""
    return is_retryable(failure.status) and failure.code != NO_QUOTA and not failure.unreachable
