"""What a call gives: `Reply` (text) and `Structured` (a validated object), each with exactly one outcome; and how a
chat completion is read.
"""

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from safer_steer.verdict import Outcome

Model = TypeVar("Model", bound=BaseModel)
CONTEXT_FULL = "context_full"


@dataclass(frozen=True, slots=True)
class Reply:
    """A model's answer: `text` with outcome `ok` or `truncated` (cut at `max_tokens`), else None and a `detail` that
    says why. A `detail` that begins with CONTEXT_FULL: the conversation no longer fits the model.
    """

    outcome: Outcome
    text: str | None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Structured(Generic[Model]):
    """A validated object with outcome `ok`, else None and a `detail` that says why."""

    outcome: Outcome
    value: Model | None
    detail: str = ""


def read_reply(completion: dict[str, Any], allow_empty: bool) -> Reply:
    """The answer in a chat completion. Only `content` can become the text, never a reasoning field.

    Args:
        completion: the server's JSON.
        allow_empty: an empty answer is an answer (a model under test), not a failure.
    """
    choices = completion.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    choice = choice if isinstance(choice, dict) else {}
    message = choice.get("message")
    if not isinstance(message, dict):
        return Reply(Outcome.UNPARSED, None, "the answer has no message")
    text, finish = _text(message.get("content")), str(choice.get("finish_reason") or "")
    if finish.startswith("content_filter"):
        return Reply(Outcome.FILTERED, None, finish.replace("_", " "))
    if refusal := message.get("refusal"):
        return Reply(Outcome.REFUSED, None, str(refusal))
    if not text and not allow_empty:
        if finish == "length":
            return Reply(Outcome.TRUNCATED, None, "cut at max_tokens before the answer began")
        return Reply(Outcome.UNPARSED, None, "the model gave an empty answer")
    return Reply(Outcome.TRUNCATED if finish == "length" else Outcome.OK, text)


def tokens_of(completion: dict[str, Any]) -> tuple[int, int] | None:
    """Tokens of prompt and answer, None when the server does not tell."""
    usage = completion.get("usage")
    if not isinstance(usage, dict) or not isinstance(usage.get("prompt_tokens"), int):
        return None
    return usage["prompt_tokens"], usage.get("completion_tokens") or 0


def _text(content: Any) -> str:
    """The text of a message's content; of a list of parts only those of type text."""
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, dict) and part.get("type") == "text"]
        content = "".join(str(part.get("text") or "") for part in parts)
    if not isinstance(content, str):
        return ""
    # Half an emoji (a lone surrogate) is legal JSON and can be written to no file.
    return content if content.isascii() else content.encode("utf-8", "replace").decode("utf-8")
