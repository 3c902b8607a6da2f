"""Where a role's model is and how it is called."""

import os
from typing import Annotated, Any

from pydantic import Field

from safer_steer.config import Section


class EndpointConfig(Section):
    """One role's OpenAI-compatible endpoint(s), sampling and limits. API keys are not here: they come from the
    environment.
    """

    model: str
    base_url: str | list[str]  # ".../v1"; "service:NAME" for a server this run starts
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None  # None: the endpoint's default
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None  # of one answer
    timeout_s: Annotated[float, Field(gt=0)] = 120.0
    max_retries: Annotated[int, Field(ge=0)] = 6
    concurrency: Annotated[int, Field(ge=1)] = 64
    extra_body: dict[str, Any] = {}  # passed on as it is, e.g. {"top_k": 20} for vLLM
    price_in: Annotated[float, Field(ge=0)] = 0.0  # USD per million tokens
    price_out: Annotated[float, Field(ge=0)] = 0.0

    def from_environment(self, role: str) -> "EndpointConfig":
        """With ROLE_API_BASE_URL and ROLE_MODEL of the environment, where they are set, in place of the config's
        values.
        """
        found = {
            "base_url": os.environ.get(f"{role.upper()}_API_BASE_URL"),
            "model": os.environ.get(f"{role.upper()}_MODEL"),
        }
        return self.model_copy(update={key: value for key, value in found.items() if value})

    def urls(self) -> list[str]:
        """The endpoints' base URLs."""
        return [self.base_url] if isinstance(self.base_url, str) else list(self.base_url)


def api_key(role: str) -> str:
    """The role's key: ROLE_API_KEY, else OPENAI_API_KEY, else a placeholder for servers that ask for none."""
    return os.environ.get(f"{role.upper()}_API_KEY") or os.environ.get("OPENAI_API_KEY") or "none"
