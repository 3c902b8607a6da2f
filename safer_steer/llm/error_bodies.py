"""Error bodies of servers, in words: {"error": {...}}, {"error": "..."}, {"errors": [...]}, a list of those,
{"detail": ...}, {"message": ...}, or plain text.
"""

import json
import re
from typing import Any

# Validators list what is wrong as loc and msg; llama-cpp-python gives that list as Python writes it.
_LISTED = re.compile(r"""'loc': \((?P<loc>[^)]*)\).*?'msg': (?P<quote>["'])(?P<msg>.*?)(?P=quote), '""", re.DOTALL)


class ErrorBody:
    """What an error body says.

    Attributes:
        message: in words, at any length.
        parameter: the request's parameter that the server objects to, "" when it names none.
        code: the server's error code, "" when it gives none.
        status: the HTTP status that the code is, 502 when it is none.
    """

    def __init__(self, body: Any):
        body = _first(body)
        error = _first(body.get("error") or body.get("errors") or body) if isinstance(body, dict) else body
        fields = error if isinstance(error, dict) else {}
        self.message = _words(fields.get("message") or fields.get("detail") or fields.get("msg") or error)
        self.parameter = str(fields.get("param") or "")
        self.code = str(fields.get("code") or "")
        self.status = int(self.code) if re.fullmatch("[45][0-9]{2}", self.code) else 502


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
