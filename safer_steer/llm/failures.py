"""Calls without an answer, and error bodies of servers in words: {"error": {...}}, {"error": "..."}, {"errors": [...]},
a list of those, {"detail": ...}, {"message": ...}, or plain text.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

MAX_MESSAGE = 500  # characters of a server's error text that are kept
# Validators list what is wrong as loc and msg; llama-cpp-python gives that list as Python writes it.
_LISTED = re.compile(r"""'loc': \((?P<loc>[^)]*)\).*?'msg': (?P<quote>["'])(?P<msg>.*?)(?P=quote), '""", re.DOTALL)


@dataclass(eq=False)
class CallFailure(Exception):
    """A request without an answer."""

    status: int | None  # None when no whole response arrived
    text: str  # what the server said, or what broke
    parameter: str = ""  # the request's parameter that the server objects to
    code: str = ""  # the server's error code
    retry_after: float | None = None  # seconds the server asks to wait
    unreachable: bool = False  # nobody took the connection: the server is not there
    endpoint: str | None = None  # base URL of the server, once it is known

    @property
    def message(self) -> str:
        """The beginning of the text."""
        return self.text[:MAX_MESSAGE]

    def __str__(self) -> str:
        return f"{self.status} {self.message}" if self.status else self.message


def failure_in(body: Any, status: int | None = None, retry_after: float | None = None) -> CallFailure:
    """What an error body says.

    Args:
        body: parsed, or plain text.
        status: the response's; None: the body's own code is one, or else it is a 502.
        retry_after: seconds the server asks to wait.
    """
    body = _first(body)
    error = _first(body.get("error") or body.get("errors") or body) if isinstance(body, dict) else body
    fields = error if isinstance(error, dict) else {}
    words = _words(fields.get("message") or fields.get("detail") or fields.get("msg") or error)
    code = str(fields.get("code") or "")
    own = int(code) if re.fullmatch("[45][0-9]{2}", code) else 502
    return CallFailure(status or own, words, str(fields.get("param") or ""), code, retry_after)


def _first(found: Any) -> Any:
    return found[0] if isinstance(found, list) and found else found


def _words(found: Any) -> str:
    if isinstance(found, list) and all(isinstance(item, dict) and "msg" in item for item in found):
        return "; ".join(f"{_place(item.get('loc'))}: {item['msg']}" for item in found)
    if not isinstance(found, str):
        return json.dumps(found, ensure_ascii=False)
    if listed := list(_LISTED.finditer(found)):
        return "; ".join(f"{_place(item['loc'].split(','))}: {item['msg']}" for item in listed)
    return found


def _place(place: Any) -> str:
    parts = place if isinstance(place, list) else str(place or "").split(".")
    names = [str(part).strip(" '\"") for part in parts]
    return ".".join(name for name in names if name not in ("body", "")) or "the request"
