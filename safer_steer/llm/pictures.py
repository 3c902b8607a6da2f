"""Models that take no pictures: how their endpoints say so, and messages without pictures."""

import re
from typing import Any

from safer_steer.llm.failures import CallFailure

_SEEING = r"(?:images?|image_urls?|pictures?|vision|visual|multi-?modal\w*)"
_NO_SIGHT = re.compile(
    rf"(?:not|n't|cannot|no endpoints? found that)\W+(?:support|accept|allow|take|have|include|enable|an?)\w*\W+"
    rf"(?:\w+\W+){{0,3}}?{_SEEING}\b|"
    rf"\b{_SEEING}\b\W+(?:\w+\W+){{0,5}}?(?:not (?:be )?\w*(?:support|accept|allow|enabl|avail|permit)|n't support|"
    r"unsupported|only supported)|(?:unknown|unsupported) (?:\w+ ){1,3}\W*image_url|\bat most 0 (?:image|picture)|"
    r"mmproj|text[- ]only|messages\S*content\S*.{0,40}(?:must be|should be|expected) an? (?:valid )?string",
    re.IGNORECASE,
)
_ONE_PICTURE = re.compile(
    r"formats?\b|mime|decod|corrupt|too (?:large|many|small|big)|resolution|dimension|pixel|base64|download|fetch|"
    r"at most [1-9]",
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
