"""A chat-completions server that fails in every way that providers fail: what the tests and `faulty_provider.py` run
against.

`CASES` is the matrix: name -> what is sent, and what it is. `create_app` serves it.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from safer_steer.llm.finish import ENDINGS, Ending
from safer_steer.llm.replies import REASONING

KINDS = {
    Ending.ANSWER: "answer",
    Ending.CUT: "cut",
    Ending.FILTERED: "filtered",
    Ending.REFUSED: "refused",
    Ending.TOOL: "no answer",
    Ending.FAILED: "failed",
}


@dataclass(frozen=True)
class Case:
    """One way in which a call ends.

    Attributes:
        kind: "answer", "cut" (with a text), "cut empty", "empty" (a text of no letters), "filtered", "refused" (in
            words), "refused empty", "no answer" (the model gave none), "thought" (as content, and no answer), "failed"
            (worth another try) or "bad request" (the request's own fault).
        body: the response's body out of the text that a good answer would have.
        status: HTTP status.
        headers: of the response.
        torn: the connection breaks in the middle of the body.
    """

    kind: str
    body: Callable[[str], bytes]
    status: int = 200
    headers: tuple[tuple[bytes, bytes], ...] = ((b"content-type", b"application/json"),)
    torn: bool = False


def completion(message: Any, **choice: Any) -> dict[str, Any]:
    """A chat completion with one choice."""
    usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    return {
        "id": "1",
        "object": "chat.completion",
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"} | choice],
        "usage": usage,
    }


def good(text: str) -> bytes:
    """What a server sends that does not fail."""
    return json.dumps(completion({"role": "assistant", "content": text})).encode()


def _reasons() -> dict[str, Case]:
    """Every finish reason with a whole answer next to it, in the spellings that are in use, and some that are not."""
    spelt = {reason: KINDS[ending] for reason, ending in ENDINGS.items()}
    spelt |= {"STOP": "answer", "endTurn": "answer", "FinishReason.STOP": "answer", "end-turn": "answer"}
    spelt |= {"stop: upstream error": "failed", "no.stop": "failed"}
    spelt |= {"MAX_TOKENS": "cut", "Length": "cut", "SAFETY": "filtered", "content_filter: SAFETY": "filtered"}
    spelt |= {"contentFilter": "filtered", "TOOL_CALLS": "no answer", "ABORT": "failed", "something_new": "failed"}
    cases = {f"finish {name}": Case(kind, _with_reason(name)) for name, kind in spelt.items()}
    others = {"null": None, "empty": "", "a number": 1, "a list": ["stop"], "true": True}
    cases |= {f"finish is {name}": Case("failed", _with_reason(value)) for name, value in others.items()}
    natives = {"ERROR": "failed", "OTHER": "failed", "SAFETY": "filtered", "MAX_TOKENS": "cut", "refusal": "refused"}
    natives |= {"end_turn": "answer", "done_for_today": "answer"}
    cases |= {f"native {name}": Case(kind, _with_reason("stop", native=name)) for name, kind in natives.items()}
    cases["finish is a type"] = Case("cut", _with_reason({"type": "length", "length": 64}))
    return cases


def _with_reason(reason: Any, native: Any = None) -> Callable[[str], bytes]:
    ends = {"finish_reason": reason, "native_finish_reason": native}
    return lambda text: json.dumps(completion({"role": "assistant", "content": text}, **ends)).encode()


def _message(kind: str, finish: str = "stop", **fields: Any) -> Case:
    message = {"role": "assistant", "content": None} | fields
    return Case(kind, lambda text: json.dumps(completion(message, finish_reason=finish)).encode())


def _whole(kind: str, build: Callable[[str], Any], status: int = 200) -> Case:
    return Case(kind, lambda text: json.dumps(build(text)).encode(), status)


def _error(kind: str, status: int, message: str = "no", *headers: tuple[bytes, bytes]) -> Case:
    return Case(kind, lambda text: json.dumps({"error": {"message": message}}).encode(), status, headers)


def _without_reason(text: str) -> dict[str, Any]:
    found = completion({"role": "assistant", "content": text})
    del found["choices"][0]["finish_reason"]
    return found


# How thoughts leak into the content: what stands around them.
THOUGHTS = {
    "think": ("<think>", "</think>"),
    "Think": ("<Think>\n", "\n</Think>\n\n"),
    "seed": ("<seed:think>", "</seed:think>"),
    "brackets": ("[THINK]", "[/THINK]"),
    "cohere": ("<|START_THINKING|>", "<|END_THINKING|>"),
    "gemma": ("<|channel>thought\n", "<channel|>"),
    "channels": ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    "channels without marks": ("analysis", "assistantfinal"),
}
LEAK = 'I could say "yes". {"score": 5, "rationale": "leak", "harmlessness": 3, "helpfulness": 3}'


def _leaks(name: str) -> dict[str, Case]:
    before, after = THOUGHTS[name]
    return {
        f"thought before it, {name}": _whole("answer", lambda t: completion({"content": f"{before}{LEAK}{after}{t}"})),
        f"thought alone, {name}": _whole("thought", lambda t: completion({"content": f"{before}{LEAK}{after}"})),
        f"thought without end, {name}": _whole("thought", lambda t: completion({"content": f"{before}{LEAK}"})),
        f"thought, cut, {name}": _message("cut empty", "length", content=f"{before}{LEAK}"),
    }


_CALL = {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
_NONSENSE = {"prompt_tokens": 5, "completion_tokens": ["3"]}
_UPSTREAM = {"code": 502, "message": "upstream"}
_HTML = b"<!doctype html><html><body>502 Bad Gateway</body></html>"
CASES: dict[str, Case] = _reasons() | {
    "no finish": _whole("failed", _without_reason),
    "content null": _message("no answer"),
    "content empty": _message("empty", content=""),
    "content of no letters": _message("empty", content=" \n"),
    "content null, cut": _message("cut empty", "length"),
    "reasoning, cut": _message("cut empty", "length", content="", reasoning_content="8, I think"),
    **{f"{name} alone": _message("no answer", **{name: "8, I think"}) for name in REASONING},
    "content is a number": _message("no answer", content=5),
    "content without parts": _message("no answer", content=[]),
    "part without text": _message("no answer", content=[{"type": "text", "text": {"value": "8"}}]),
    "picture part": _message("no answer", content=[{"type": "image_url", "image_url": {"url": "x"}}]),
    "thinking part alone": _message("no answer", content=[{"type": "thinking", "thinking": "8"}]),
    "parts": _whole("answer", lambda t: completion({"content": [{"type": "text", "text": t}]})),
    "part alone": _whole("answer", lambda t: completion({"content": {"type": "text", "text": t}})),
    "texts": _whole("answer", lambda t: completion({"content": [t[:1], {"text": t[1:]}]})),
    "a part is a thought": _whole("answer", lambda t: completion({"content": [{"text": LEAK, "thought": True}, t]})),
    "usage of nonsense": _whole("answer", lambda t: completion({"content": t}) | {"usage": _NONSENSE}),
    **{case: found for name in THOUGHTS for case, found in _leaks(name).items()},
    "said by another": _whole("failed", lambda t: completion({"role": "user", "content": t})),
    "refusal": _message("refused", refusal="I will not."),
    "refusal part": _message("refused", content=[{"type": "refusal", "refusal": "I will not."}]),
    "refusal, content empty": _message("refused empty", "refusal", content=""),
    "refusal, content of no letters": _message("refused empty", "refusal", content=" \n"),
    "native refusal, content null": _whole(
        "refused empty", lambda t: completion({"content": None}, native_finish_reason="refusal")
    ),
    "tool call, stop": _message("no answer", tool_calls=[_CALL]),
    "function call, stop": _message("no answer", content="", function_call=_CALL["function"]),
    "no choices": _whole("failed", lambda t: {"id": "1", "object": "chat.completion"}),
    "choices empty": _whole("failed", lambda t: {"id": "1", "choices": []}),
    "choices null": _whole("failed", lambda t: {"choices": None, "base_resp": {"status_code": 1008}}),
    "choice is a text": _whole("failed", lambda t: {"choices": [t]}),
    "choice is empty": _whole("failed", lambda t: {"choices": [{}]}),
    "message null": _whole("failed", lambda t: completion(None)),
    "error, no choices": _whole("failed", lambda t: {"error": _UPSTREAM}),
    "error beside choices": _whole("failed", lambda t: completion({"content": t}) | {"error": "upstream"}),
    "errors beside choices": _whole("failed", lambda t: completion({"content": t}) | {"errors": [_UPSTREAM]}),
    "error object beside choices": _whole("failed", lambda t: completion({"content": t}) | {"object": "error"}),
    "error in a part": _whole("failed", lambda t: completion({"content": [{"text": t}, {"error": _UPSTREAM}]})),
    "error in the choice": _whole("failed", lambda t: completion({"content": t}, error=_UPSTREAM)),
    "error in the message": _whole("failed", lambda t: completion({"content": t, "error": _UPSTREAM})),
    "error object": _whole("failed", lambda t: {"object": "error", "message": "worker died", "code": 500}),
    "400 in a 200": _whole("bad request", lambda t: {"error": {"message": "bad row", "code": 400}}),
    "html": Case("failed", lambda t: _HTML, headers=((b"content-type", b"text/html"),)),
    "html 502": Case("failed", lambda t: _HTML, 502),
    "torn json": Case("failed", lambda t: good(t)[: len(good(t)) // 2]),
    "torn connection": Case("failed", good, torn=True),
    "nested too deep": Case("failed", lambda t: b"[" * 100_000),
    "a list": _whole("failed", lambda t: [t]),
    "nothing": Case("failed", lambda t: b""),
    **{f"status {status}": _error("failed", status) for status in (408, 424, 499, 500, 502, 503, 504, 529)},
    **{f"status {status}": Case("failed", good, status) for status in (201, 202)},
    "status 422, nested too deep": Case("bad request", lambda t: b"[" * 100_000, 422),
    "status 422, place null": _whole("bad request", lambda t: {"detail": [{"loc": None, "msg": "bad row"}]}, 422),
    "status 429": _error("failed", 429, "slow", (b"retry-after-ms", b"1")),
    **{f"status {status}": _error("bad request", status, "bad row") for status in (400, 413, 415, 422)},
}


def create_app(choose: Callable[[dict[str, Any]], tuple[Case | None, str]], model: str = "m") -> Any:
    """The server as a bare ASGI application.

    Args:
        choose: gives, for a request's body, the case (None: a good answer) and the text of a good answer.
        model: what it says that it serves; "*" where any will do is for the caller to avoid.
    """

    async def app(scope: dict, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        message, body = {"more_body": True}, b""
        while message.get("more_body"):
            message = await receive()
            body += message.get("body", b"")
        case, text = (None, "") if scope["method"] == "GET" else choose(json.loads(body))
        answer = json.dumps({"data": [{"id": model}]}).encode() if scope["method"] == "GET" else good(text)
        case = case or Case("answer", lambda _: answer)
        content = case.body(text)
        headers = [*case.headers, (b"content-length", str(len(content)).encode())]
        await send({"type": "http.response.start", "status": case.status, "headers": headers})
        if case.torn:
            await send({"type": "http.response.body", "body": content[: len(content) // 2], "more_body": True})
            return
        await send({"type": "http.response.body", "body": content})

    return app
