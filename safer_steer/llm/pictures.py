"""Models that take no pictures: how their endpoints say so, and messages without pictures."""

import re
from typing import Any

from safer_steer.llm.failures import CallFailure

_SEEING = r"(?:images?|image_urls?|pictures?|vision|visual|multi-?modal\w*)"
_NO_SIGHT = re.compile(
    rf"(?:not|n't|cannot|no endpoints? found that)\W+(?:support|accept|allow|take|have|include|enable)\w*\W+"
    rf"(?:\w+\W+){{0,3}}?{_SEEING}\b|not an? (?:multi-?modal|vision|visual|vlm)|missing \w+ required for {_SEEING}|"
    rf"\b{_SEEING}\b\W+(?:\w+\W+){{0,5}}?(?:not (?:be )?\w*(?:support|accept|allow|enabl|avail|permit)|n't support|"
    r"unsupported|only supported)|"
    r"(?:unknown|unsupported|invalid) (?:(?:content|part|message|item|variant|type)\W+){1,3}image_url|"
    r"invalid value\W+(?:image_url|input_image)\b|\bat most 0 (?:image|picture)|mmproj|text[- ]only|"
    r"only\W+text\W+(?:\w+\W+){0,2}?(?:is|are|supported|allowed|accepted)\b|"
    r"(?:only (?:supports?|accepts?|takes?)|accepts?) text\b|"
    r"messages\S*content\S*.{0,40}(?:must be|should be|expected) an? (?:valid )?string",
    re.IGNORECASE,
)
_ONE_PICTURE = re.compile(
    r"formats?\b|mime|media type|decod|corrupt|too (?:large|many|small|big)|exceed|resolution|dimension|pixel|base64|"
    r"download|fetch|valid image|safety|policy|at most [1-9]",
    re.IGNORECASE,
)


def has_pictures(messages: list[dict[str, Any]]) -> bool:
    """Whether a message shows a picture."""
    return any(part.get("type") == "image_url" for message in messages for part in _parts(message))


def without_pictures(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages' text alone."""
    if not has_pictures(messages):
        return messages
    return [
        message | {"content": "".join(part["text"] for part in parts if part.get("type") == "text")}
        if (parts := _parts(message))
        else message
        for message in messages
    ]


def takes_no_pictures(failure: CallFailure) -> bool:
    """Whether an error to a request with pictures says that the model cannot see, not that one picture is bad."""
    final = failure.status in (400, 404, 415, 422, 500, 501)
    return final and bool(_NO_SIGHT.search(failure.text)) and not _ONE_PICTURE.search(failure.text)


def _parts(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message.get("content")
    return content if isinstance(content, list) else []
