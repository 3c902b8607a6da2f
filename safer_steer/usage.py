"""What roles were called for, added up over workers and attempts."""

from collections.abc import Mapping, Sequence
from typing import Any


def merge_usage(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Adds up counts, tokens and dollars of several parts, at any depth.

    Latency percentiles cannot be added: the largest is given. Text, such as the model's name or a cost that is unknown
    to one part, stands for all.
    """
    merged: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            merged[key] = _merged(key, merged[key], value) if key in merged else value
    return merged


def changes(usage: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """(role, parameter, what became of it) for everything of the requests that was left out or replaced, because an
    endpoint does not take it or the config says so.
    """
    return [(role, name, how) for role, part in usage.items() for name, how in part.get("changed", {}).items()]


def _merged(key: str, old: Any, new: Any) -> Any:
    if isinstance(old, dict):
        return merge_usage([old, new])
    if isinstance(old, str) or isinstance(new, str):
        return old if isinstance(old, str) else new
    return max(old, new) if "latency" in key else old + new
