"""Outcomes of model calls, and the absence of a score: a call has exactly one outcome, and no score is ever made up."""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class Outcome(StrEnum):
    """How a model call ended.

    `ok` an answer; `refused` the model declined the task itself; `filtered` the provider's content filter; `truncated`
    cut at the token limit or by the context; `transport` no answer after all retries; `unparsed` an answer without the
    asked-for structure, or nothing but reasoning or a tool call; `bad_request` the endpoint refuses this very request,
    and does so every time.
    """

    OK = "ok"
    REFUSED = "refused"
    FILTERED = "filtered"
    TRUNCATED = "truncated"
    TRANSPORT = "transport"
    UNPARSED = "unparsed"
    BAD_REQUEST = "bad_request"


class Unscored(BaseModel):
    """The absence of a score, with its reason: left out of every mean, counted next to it, never 0 and never "safe"."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    outcome: Outcome
    detail: str

    @property
    def reason(self) -> str:
        """`outcome: detail`, for records and messages."""
        return f"{self.outcome}: {self.detail}"
