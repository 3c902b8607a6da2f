"""What a call gives: `Reply` (text) and `Structured` (a validated object), each with exactly one outcome; and how a
chat completion is read.
"""

import json
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from safer_steer.answer_tags import THOUGHT_TAGS, split_answer, with_opening
from safer_steer.llm.finish import Ending, ending_of
from safer_steer.verdict import Outcome

Model = TypeVar("Model", bound=BaseModel)
CONTEXT_FULL = "context_full"
REASONING = ("reasoning", "reasoning_content", "reasoning_details", "thinking")
OTHERS = ("user", "system", "developer", "tool", "function")  # roles that are not the model's
MOST_TOKENS = 1e9  # of one call; a larger number is none
_TEXTS = ("text", "output_text")
_THOUGHTS = ("thinking", "reasoning", "redacted_thinking", "thought")
SHOWN = 120  # characters of an unusable answer in a detail


@dataclass(frozen=True, slots=True)
class Reply:
    """A model's answer: `text` with outcome `ok` or `truncated` (cut at `max_tokens`), else None and a `detail` that
    says why. A `detail` that begins with CONTEXT_FULL: the conversation no longer fits the model. `said` is all that
    the model wrote where nothing of it is an answer: filtered text, thoughts, calls of tools; of a refusal the words,
    None where there are none.
    """

    outcome: Outcome
    text: str | None
    detail: str = ""
    reasoning: str = ""  # what the server gives besides the text as the model's thoughts
    said: str | None = None

    @property
    def cut(self) -> bool:
        """Whether a larger budget could have given more."""
        return self.outcome == Outcome.TRUNCATED and not self.detail.startswith(CONTEXT_FULL)


@dataclass(frozen=True, slots=True)
class Structured(Generic[Model]):
    """A validated object with outcome `ok`, else None and a `detail` that says why; `said` is the whole text of an
    answer that could not be used.
    """

    outcome: Outcome
    value: Model | None
    detail: str = ""
    said: str | None = None


def error_in(completion: dict[str, Any]) -> Any:
    """The error that a completion with status 200 carries instead of an answer; None when it ends as one does.

    Returns:
        An error body as providers send it, or words of this client; gateways pass an upstream's error on in the whole
        completion or in its choice.
    """
    choices = completion.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if completion.get("error") or completion.get("errors") or completion.get("object") == "error":
        return completion
    if not isinstance(choice, dict):
        told = any(completion.get(name) for name in ("message", "detail"))
        return completion if told else f"the answer has no choices{_hint(completion)}"
    message = choice.get("message")
    for holder in (choice, message, *_parts(message)):
        if isinstance(holder, dict) and holder.get("error"):
            return holder
    reason = choice.get("finish_reason")
    if ending_of(choice) == Ending.FAILED:
        return _finish(choice) if reason else "the answer has no finish_reason"
    if not isinstance(message, dict):
        return "the answer has no message"
    if message.get("role") in OTHERS:
        return f"the answer is a message of role {message['role']}"
    return None


def read_reply(completion: dict[str, Any], allow_empty: bool, opening: str = "") -> Reply:
    """The answer in a chat completion without an error. Only `content` can become the text, never a reasoning field.

    Args:
        completion: the server's JSON, for which `error_in` is None.
        allow_empty: an empty answer is an answer (a model under test), not a failure. No content at all is none.
        opening: the mark that opens a thought in the prompt; an answer whose thoughts come separately has none.
    """
    choice = completion["choices"][0]
    message, ending = choice["message"], ending_of(choice)
    content = message.get("content")
    said, refusal = _text(content), _refusal(message)
    reasoning = next((words for name in REASONING if (words := _text(message.get(name)))), "")
    thought = any(map(message.get, REASONING)) or _parts(message, *_THOUGHTS)
    text = said or "" if thought else with_opening(said or "", opening)
    if ending == Ending.FILTERED:
        return Reply(Outcome.FILTERED, None, _finish(choice), said=_whole(message))
    if refusal or ending == Ending.REFUSED:
        words = "\n".join(dict.fromkeys(filter(None, (text.strip(), refusal)))) or None
        return Reply(Outcome.REFUSED, None, words or _finish(choice), said=words)
    calls = message.get("tool_calls") or message.get("function_call")
    if ending == Ending.TOOL or (calls and not text.strip()):
        return Reply(Outcome.UNPARSED, None, "the model called a tool instead of answering", said=_whole(message))
    if other := next((part for part in _all_parts(content) if not _is_known(part)), None):
        detail = f"the answer has a part that is no text, of type {_type(other)!r:.40}"
        return Reply(Outcome.UNPARSED, None, detail, said=_whole(message))
    cut_thought = ending == Ending.CUT and not split_answer(text, THOUGHT_TAGS).answer.strip()
    if not text.strip() or cut_thought:
        if ending == Ending.CUT:
            begins = f"; it begins {quoted(text)}" if text.strip() else ""
            detail = f"cut at max_tokens before the answer began{begins}"
            return Reply(Outcome.TRUNCATED, None, detail, said=_whole(message))
        if thought or not allow_empty or said is None:
            what = "only its reasoning, no answer" if thought else "an empty answer"
            return Reply(Outcome.UNPARSED, None, f"the model gave {what}", said=_whole(message))
    return Reply(Outcome.TRUNCATED if ending == Ending.CUT else Outcome.OK, text, reasoning=reasoning)


def tokens_of(completion: dict[str, Any]) -> tuple[int, int] | None:
    """Tokens of prompt and answer, None when the server does not tell."""
    usage = completion.get("usage")
    told = (usage.get("prompt_tokens"), usage.get("completion_tokens") or 0) if isinstance(usage, dict) else ()
    counts = [int(number) for number in told if isinstance(number, int | float) and 0 <= number < MOST_TOKENS]
    return (counts[0], counts[1]) if len(counts) == 2 else None


def quoted(text: str) -> str:
    """The beginning of an answer, in one line, for a message."""
    line = " ".join(text.split())
    return f'"{line[:SHOWN]}{"…" if len(line) > SHOWN else ""}"'


def _text(content: Any) -> str | None:
    """The text of a message's content, None where it holds none; of parts only those of text, with nothing else."""
    if isinstance(content, list | dict):
        parts = _all_parts(content)
        said = (part.get("text") if _type(part) in _TEXTS and not _is_thought(part) else part for part in parts)
        texts = [text for text in said if isinstance(text, str)]
        content = "".join(texts) if texts else None
    if not isinstance(content, str):
        return None
    # Half an emoji (a lone surrogate) is legal JSON and can be written to no file.
    return content if content.isascii() else content.encode("utf-8", "replace").decode("utf-8")


def _is_thought(part: Any) -> bool:
    """Whether a part of text is marked as reasoning, as Gemini does."""
    return isinstance(part, dict) and bool(part.get("thought"))


def _all_parts(content: Any) -> list[Any]:
    """A message's content as parts; a text is none."""
    return content if isinstance(content, list) else [content] if isinstance(content, dict) else []


def _is_known(part: Any) -> bool:
    """Whether a part is text, a thought or a refusal; any other would be missing in the answer."""
    if not isinstance(part, dict):
        return isinstance(part, str)
    if _type(part) in (*_THOUGHTS, "refusal") or _is_thought(part):
        return True
    return _type(part) in _TEXTS and isinstance(part.get("text", None if "type" in part else 0), str | None)


def _type(part: Any) -> Any:
    return part.get("type", "text") if isinstance(part, dict) else ""


def _parts(message: Any, *types: str) -> list[dict[str, Any]]:
    """The parts of a message's content, of these types or of all."""
    parts = _all_parts(message.get("content")) if isinstance(message, dict) else []
    return [part for part in parts if isinstance(part, dict) and (not types or _type(part) in types)]


def _refusal(message: dict[str, Any]) -> str:
    said = [message.get("refusal"), *(part.get("refusal") for part in _parts(message, "refusal"))]
    return "".join(filter(None, map(_text, said))).strip()


def _whole(message: dict[str, Any]) -> str | None:
    """All that a message holds, thoughts and calls of tools too; what is no plain text as JSON. None: nothing."""
    held = (message.get(name) for name in (*REASONING, "content", "refusal", "tool_calls", "function_call"))
    texts = (part if isinstance(part, str) else json.dumps(part, ensure_ascii=False) for part in held if part)
    return _text("\n".join(dict.fromkeys(texts))) or None


def _finish(choice: dict[str, Any]) -> str:
    """Why a choice ended, in the provider's words."""
    native = choice.get("native_finish_reason")
    return f"finish_reason {choice['finish_reason']}" + (f" (native {native})" if native else "")


def _hint(completion: dict[str, Any]) -> str:
    """What a provider says next to missing choices (MiniMax, Gemini), in words."""
    for name in ("base_resp", "promptFeedback", "prompt_feedback"):
        if isinstance(found := completion.get(name), dict):
            return f" ({', '.join(f'{key}: {value}' for key, value in found.items() if isinstance(value, str | int))})"
    return ""
