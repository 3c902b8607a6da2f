"""API keys stay in the environment: a config that holds one is refused, and no record, message or command shows one."""

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic_core import PydanticCustomError

HIDDEN = "[hidden]"
MIN_KEY_CHARS = 8  # shorter values are stand-ins for servers that ask for no key
# Longer ones are when they say so: "placeholder", "not-needed", "sk-no-key-required", "your-api-key-here".
_STAND_IN = re.compile(
    r"(?:(?:an?|any(?:thing)?|api|change(?:me)?|cpp|default|dummy|empty|example|fake|here|ignored|is|key|llama|lm|"
    r"local(?:host)?|me|my|need(?:ed|s)|no|none|not|nothing|null|openai|placeholder|required|sk|some(?:thing)?|string|"
    r"studio|test(?:ing)?|the|token|unused|value|whatever|your)(?:[\W_]+|$))+"
)
_NAME = re.compile(
    r"(?:^|[._-])(?:api[_-]?key|secret(?:[_-]?key)?|passw(?:or)?d|authorization|(?:access|auth|hf|bearer)[_-]?token)$",
    re.IGNORECASE,
)
# Of environment names only: a config may well have a key such as max_token.
_ENVIRONMENT = re.compile(r"(?:^|_)(?:secret_access_key|hub_token|github_token|openai_key)$", re.IGNORECASE)
_ASSIGNED = re.compile(
    r"((?:api[_-]?key|secret|passw(?:or)?d|authorization|(?:access|auth|hf|bearer)[_-]?token)(?:=|[\"']\s*:\s*))[^\s,}]+",
    re.IGNORECASE,
)
_USER = re.compile(r"(?<=://)[^/\s'\"@]+(?=@)")  # user:password of an address
_QUERY = re.compile(r"(://[^\s'\"?]*\?)[^\s'\"]+")


def keys_of_environment() -> dict[str, str]:
    """Name -> value of the environment's variables that hold credentials, by their name (`JUDGE_API_KEY`, ...)."""
    named = {name: value for name, value in os.environ.items() if _NAME.search(name) or _ENVIRONMENT.search(name)}
    found = {name: value.strip() for name, value in named.items()}
    return {name: value for name, value in found.items() if not is_stand_in(value)}


def is_stand_in(value: str) -> bool:
    """Whether a key's value is none: too short for one, or words that say that there is no key. To strike it out of
    texts would spoil them.
    """
    return len(value) < MIN_KEY_CHARS or bool(_STAND_IN.fullmatch(value.lower()))


def without_keys(text: str) -> str:
    """The text with credentials struck out: the environment's, those in addresses, and what is assigned to a name
    such as `api_key`.
    """
    for name, value in keys_of_environment().items():
        text = text.replace(value, f"[{name}]")
    text = _QUERY.sub(rf"\1{HIDDEN}", _USER.sub(HIDDEN, text))
    return _ASSIGNED.sub(rf"\1{HIDDEN}", text)


def key_inside(value: Any) -> str | None:
    """Name of the environment's variable whose value is in plain data, None when none is."""
    texts = list(_texts(value))
    return next((name for name, key in keys_of_environment().items() if any(key in text for text in texts)), None)


def refuse_credentials(value: Any) -> Any:
    """Field validator of free-form settings (request bodies, command lines, environments): no credentials in them.

    Raises:
        PydanticCustomError: a setting's name says that it is a credential; the text does not repeat its value.
    """
    if name := _credential(value):
        raise PydanticCustomError(
            "credential",
            "{name} is a credential; remove it from the config: keys come from the environment (ROLE_API_KEY)",
            {"name": name},
        )
    return value


def redacted(value: Any) -> Any:
    """Plain data with the values of credentials struck out, for error messages."""
    if isinstance(value, Mapping):
        return {key: HIDDEN if _NAME.search(str(key)) else redacted(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        after = [False, *(isinstance(item, str) and bool(_NAME.search(item)) for item in value)]
        return [HIDDEN if hide else redacted(item) for hide, item in zip(after, value, strict=False)]
    return without_keys(value) if isinstance(value, str) else value


def _credential(value: Any) -> str | None:
    """The first name of a credential in nested settings or in a command line's arguments."""
    if isinstance(value, Mapping):
        named = next((str(key) for key, item in value.items() if item and _NAME.search(str(key))), None)
        return named or next(filter(None, map(_credential, value.values())), None)
    if isinstance(value, list | tuple):
        names = (item.partition("=")[0] for item in value if isinstance(item, str))
        named = next((name for name in names if _NAME.search(name)), None)
        return named or next(filter(None, (_credential(item) for item in value if not isinstance(item, str))), None)
    return None


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from (str(key), *_texts(item))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
