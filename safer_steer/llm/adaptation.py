"""Requests fitted to what an endpoint takes: a parameter it refuses is left out or renamed, once, and remembered for
the model; an answer limit that does not fit is lowered.
"""

import json
import re
from typing import Any

from safer_steer.llm.transport import CallFailure

MIN_ANSWER = 16  # tokens; with less room the context is full
ADAPTABLE = ("response_format", "max_completion_tokens", "max_tokens", "top_p", "seed", "temperature")
_CONTEXT = re.compile(
    r"context.?(?:length|window|limit)|maximum context|max_model_len|too many (?:input )?tokens|input token count|"
    r"(?:prompt|input|messages?|text) (?:is|are) too long",
    re.IGNORECASE,
)
_REFUSAL = re.compile(
    r"unsupported|not supported|n[o']t support|unknown|unexpected|unrecognized|not permitted|not allowed|forbidden|"
    r"unavailable|not available|not compatible|cannot both|only the default|invalid schema|invalid parameter",
    re.IGNORECASE,
)
_MOST = re.compile(r"(?:at most|less than or equal to|<=|\[\d+, ?)\s*(\d+)", re.IGNORECASE)
_ROOM = re.compile(r"context length is (\d+).*?(\d+) (?:input tokens|(?:tokens )?in the messages)", re.I | re.S)
_FILTER_CODES = ("content_filter", "content_policy_violation", "data_inspection_failed", "invalid_prompt")
_INSTRUCTION = "Answer with exactly one JSON object that fits this JSON schema, and nothing else:\n"


def is_context_full(failure: CallFailure) -> bool:
    """The conversation and the answer asked for do not fit the model's context."""
    return failure.code == "context_length_exceeded" or bool(_CONTEXT.search(failure.message))


def is_filtered(failure: CallFailure) -> bool:
    """A provider's content filter refused the prompt with an error."""
    return failure.code in _FILTER_CODES or "content management policy" in failure.message


class Adaptation:
    """What one model's endpoints do not take, learnt from their errors.

    Attributes:
        refused: parameters that are left out or replaced.
        most_tokens: the longest answer the model gives, in tokens, where an error told it.
    """

    def __init__(self) -> None:
        self.refused: set[str] = set()
        self.most_tokens: int | None = None

    def apply(self, request: dict[str, Any]) -> dict[str, Any]:
        """The request as this model takes it."""
        if not self.refused and self.most_tokens is None:
            return request
        fitted = dict(request)
        if "max_tokens" in self.refused and "max_tokens" in fitted:
            fitted["max_completion_tokens"] = fitted.pop("max_tokens")
        if "response_format" in self.refused and "json_schema" in fitted.get("response_format", {}):
            schema = fitted["response_format"]["json_schema"]["schema"]
            fitted["messages"] = _with_instruction(request["messages"], _INSTRUCTION + json.dumps(schema))
        for name in ("max_tokens", "max_completion_tokens"):
            if self.most_tokens is not None and name in fitted:
                fitted[name] = min(fitted[name], self.most_tokens)
        return {name: value for name, value in fitted.items() if name not in self.refused}

    def learn(self, sent: dict[str, Any], failure: CallFailure) -> bool:
        """Reads a 400 or 422.

        Args:
            sent: the request as it was sent.
            failure: the endpoint's answer to it.

        Returns:
            True when the endpoint refused a parameter that can be left out: the call is worth another try.
        """
        if failure.status not in (400, 422) or is_context_full(failure):
            return False
        for name in ADAPTABLE:
            if name not in sent or not _names(failure, name):
                continue
            if _REFUSAL.search(failure.message):
                self.refused.add(name)
                return True
            told = _MOST.search(failure.message) if name.startswith("max_") else None
            if told and 0 < int(told[1]) < sent[name]:
                self.most_tokens = int(told[1])
                return True
        return False


def shortened(request: dict[str, Any], failure: CallFailure) -> dict[str, Any] | None:
    """After a context error: the request with fewer tokens for the answer (the room that the error tells, else half),
    None when fewer than MIN_ANSWER are left.
    """
    wanted = request.get("max_tokens")
    if wanted is None or wanted <= MIN_ANSWER:
        return None
    told = _ROOM.search(failure.message)
    room = int(told[1]) - int(told[2]) if told else wanted
    fewer = room if room < wanted else wanted // 2
    return request | {"max_tokens": fewer} if fewer >= MIN_ANSWER else None


def _names(failure: CallFailure, name: str) -> bool:
    if failure.parameter:
        return failure.parameter.split(".")[0] == name
    text = failure.message.replace("json_schema", "response_format")
    return bool(re.search(rf"(?<!\w){name}(?!\w)", text))


def _with_instruction(messages: list[dict[str, Any]], text: str) -> list[dict[str, Any]]:
    """The messages with a text at the end of the last one, which is a user's."""
    last = messages[-1]
    content = last["content"]
    more = f"{content}\n\n{text}" if isinstance(content, str) else [*content, {"type": "text", "text": text}]
    return [*messages[:-1], last | {"content": more}]
