"""Where a role's model is, how it is called, and what it costs."""

import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from safer_steer.addresses import is_loopback
from safer_steer.answer_tags import opening_at_end
from safer_steer.config import Operational, Section
from safer_steer.errors import UserError
from safer_steer.secrets import refuse_credentials

Parameter = Literal["temperature", "top_p", "max_tokens", "seed"]


class EndpointConfig(Section):
    """One role's OpenAI-compatible endpoint(s), sampling and limits. API keys are not here: they come from the
    environment.

    Limits hold for one process; several endpoints (the same model served in several places) share them.
    """

    model: str
    base_url: Annotated[str | list[str], Operational]
    """".../v1", one or several; "service:NAME" for a server this run starts."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """None: the endpoint's default."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """Of one answer."""
    leave_out: list[Parameter] = []
    """Never sent, whatever a stage sets."""
    thought_opening: str = ""
    """The mark, such as `<think>`, with which the chat template opens a thought in the prompt, where the server leaves
    the thought and its end in the text. "": it does neither; a checkpoint that evaluation serves is asked itself.
    """
    structured: Literal["schema", "json_object", "prompt"] = "schema"
    """How JSON is asked for; the first falls back."""
    pictures: bool = True
    """False: the model cannot see, it gets the text alone."""
    timeout_s: Annotated[float, Field(gt=0), Operational] = 120.0
    """Of one try."""
    max_retries: Annotated[int, Field(ge=0), Operational] = 6
    """After what passes (`retry.py`): 5xx, time-outs, ...; 0: never."""
    outage_wait_s: Annotated[float, Field(ge=0), Operational] = 120.0
    """A server that takes no connection is waited for so long."""
    rate_limit_wait_s: Annotated[float, Field(ge=0), Operational] = 900.0
    """A call that meets 429s is tried again for so long."""
    retry_after_cap_s: Annotated[float, Field(gt=0), Operational] = 300.0
    """Longest Retry-After that is waited for."""
    concurrency: Annotated[int, Field(ge=1), Operational] = 64
    """Calls at once, at most; fewer for a while after a 429."""
    requests_per_minute: Annotated[Annotated[float, Field(gt=0)] | None, Operational] = None
    """None: no limit."""
    tokens_per_minute: Annotated[Annotated[float, Field(gt=0)] | None, Operational] = None
    """Prompt and answer together; None: no limit."""
    tokenizer: str | None = None
    """Folder or hub id of the model's tokenizer, whose special tokens in texts stay text; None: of a vLLM server that
    of the checkpoint it names, of any other none.
    """
    extra_body: dict[str, Any] = {}
    """Passed on as it is, e.g. {"top_k": 20} for vLLM."""
    price_in: Annotated[Annotated[float, Field(ge=0)] | None, Operational] = None
    """USD per million prompt tokens; None: unknown."""
    price_out: Annotated[Annotated[float, Field(ge=0)] | None, Operational] = None
    """USD per million answer tokens; None: unknown."""

    _no_credentials = field_validator("extra_body")(refuse_credentials)

    @field_validator("thought_opening")
    @classmethod
    def _a_mark(cls, value: str) -> str:
        if value and opening_at_end(value) != value:
            raise ValueError(f'{value!r} is no mark that opens a thought; give one such as <think>, or ""')
        return value

    @field_validator("base_url")
    @classmethod
    def _usable_urls(cls, value: str | list[str]) -> str | list[str]:
        urls = [value] if isinstance(value, str) else value
        problem = "give at least one address" if not urls else next(filter(None, map(_url_problem, urls)), None)
        if problem:
            raise ValueError(problem)
        return value

    def from_environment(self, role: str) -> "EndpointConfig":
        """With ROLE_API_BASE_URL (several: separated by commas) and ROLE_MODEL of the environment in place of the
        config's values; another model than the config's has no known price.

        Raises:
            UserError: an address of the environment cannot be used.
        """
        update: dict[str, Any] = {}
        name = f"{role.upper()}_API_BASE_URL"
        if urls := [url.strip() for url in os.environ.get(name, "").split(",") if url.strip()]:
            if problem := next(filter(None, map(_url_problem, urls)), None):
                raise UserError(f"{name}: {problem}")
            update["base_url"] = urls[0] if len(urls) == 1 else urls
        model = os.environ.get(f"{role.upper()}_MODEL")
        if model and model != self.model:
            update |= {"model": model, "price_in": None, "price_out": None}
        return self.model_copy(update=update)

    def urls(self) -> list[str]:
        """The endpoints' base URLs."""
        return [self.base_url] if isinstance(self.base_url, str) else list(self.base_url)

    def share(self, workers: int) -> "EndpointConfig":
        """One worker's part of the limits, so that `workers` processes with a client each keep to them together.

        At least one call at once is left to each.
        """
        update: dict[str, Any] = {"concurrency": max(1, self.concurrency // workers)}
        for name in ("requests_per_minute", "tokens_per_minute"):
            if (limit := getattr(self, name)) is not None:
                update[name] = limit / workers
        return self.model_copy(update=update)

    def usd(self, tokens_in: float, tokens_out: float) -> float | None:
        """What so many tokens cost, in USD; None when a price is unknown."""
        if self.price_in is None or self.price_out is None:
            return None
        return (tokens_in * self.price_in + tokens_out * self.price_out) / 1e6


def api_key(role: str) -> str | None:
    """The role's key: ROLE_API_KEY, else OPENAI_API_KEY, else None, for servers that ask for none.

    Raises:
        UserError: it holds a character that cannot be sent.
    """
    for name in (f"{role.upper()}_API_KEY", "OPENAI_API_KEY"):
        if key := os.environ.get(name, "").strip():
            if not (key.isascii() and key.isprintable()):
                raise UserError(f"{name}: a line break or a character that no key has is in it; copy the key again")
            return key
    return None


def require_keys(endpoints: Mapping[str, EndpointConfig]) -> None:
    """Checks that every role has the key that its endpoint will ask for: one that is reached over https, off this
    machine.

    Raises:
        UserError: keys are missing; one message names all of them.
    """
    missing = [
        f"{role.upper()}_API_KEY ({endpoint.model} at {url})"
        for role, endpoint in endpoints.items()
        for url in endpoint.urls()[:1]
        if url.startswith("https://") and not is_loopback(url) and api_key(role) is None
    ]
    if missing:
        raise UserError(
            f"no key for {', '.join(missing)}: set it in the environment, or OPENAI_API_KEY for all roles; a server "
            "that asks for none takes any text"
        )


def _url_problem(url: str) -> str | None:
    """Why an address cannot be used; the text never repeats credentials."""
    if url.startswith("service:"):
        return None
    no_address = f"{url!r} is no address; allowed: http://HOST/v1, https://HOST/v1, service:NAME"
    try:
        parts, _ = urlsplit(url), urlsplit(url).port
    except ValueError as error:  # broken brackets, a port that is none
        return f"{no_address} ({error})"
    if parts.username or parts.password or parts.query:
        return (
            "an address carries a user, a password or a query; keys belong into the environment (ROLE_API_KEY), "
            "the address ends in the path, as in https://host/v1"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return no_address
    return None
