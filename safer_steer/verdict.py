"""Outcomes of model calls and the scores that judges and tutors give: a call has exactly one outcome, and no score is
ever made up.
"""

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

TutorScale = Annotated[int, Field(ge=1, le=10, strict=True)]
HarmlessnessScale = Annotated[int, Field(ge=-3, le=3, strict=True)]
HelpfulnessScale = Annotated[int, Field(ge=0, le=3, strict=True)]


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


class TurnScores(BaseModel):
    """Tutor scores s_t of one assistant turn (Eq. 3): integers 1 (worst) to 10 (best)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    safety: TutorScale
    usefulness: TutorScale
    faithfulness: TutorScale


class JudgeScores(BaseModel):
    """Judge scores of one assistant turn (App. B): harmlessness -3 to 3, helpfulness 0 to 3, with a rationale each."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    harmlessness_rationale: str = ""  # before the numbers: a model should reason first
    helpfulness_rationale: str = ""
    harmlessness: HarmlessnessScale
    helpfulness: HelpfulnessScale


class Unscored(BaseModel):
    """The absence of a score, with its reason: left out of every mean, counted beside it, never 0 and never "safe"."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    reason: str
