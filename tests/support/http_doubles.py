"""The HTTP doubles of all tests: real servers on loopback that answer as a test says and keep what they are asked."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from miniature.teacher import create_app
from safer_steer.data_block import DATA_OPEN, parse_data_block
from safer_steer.servers import free_port

ROLES = ("generator", "target", "red", "blue", "evaluator")


class Switch:
    """An application on a port of its own, which can be taken away and comes back."""

    def __init__(self, app: Any):
        self.app, self.port = app, free_port()
        self.url = f"http://127.0.0.1:{self.port}/v1"

    def on(self) -> None:
        """Starts it in a thread."""
        self._server = uvicorn.Server(uvicorn.Config(self.app, host="127.0.0.1", port=self.port, log_level="critical"))
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)

    def off(self) -> None:
        """Ends it, and the calls under way with it."""
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(20)


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """Serves an application; gives its base URL ending in /v1."""
    found = Switch(app)
    found.on()
    try:
        yield found.url
    finally:
        found.off()


def respond(answer: Any) -> Response:
    """A response out of a test's answer.

    A text becomes a completion with that content; a dict one with these message fields (and `finish_reason`); a tuple
    an error: (status, message or body, headers).
    """
    if isinstance(answer, Response):
        return answer
    if isinstance(answer, tuple):
        status, problem, headers = (*answer, {})[:3]
        body = {"error": {"message": problem}} if isinstance(problem, str) else problem
        return JSONResponse(body, status_code=status, headers=headers)
    message = {"role": "assistant"} | (answer if isinstance(answer, dict) else {"content": answer})
    choice = {"index": 0, "finish_reason": message.pop("finish_reason", "stop"), "message": message}
    usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    return JSONResponse({"id": "1", "object": "chat.completion", "model": "m", "choices": [choice], "usage": usage})


class Script:
    """Chat completions that are a test's answers in order (the last one again and again); keeps the requests.

    An answer may be a function of the request's body, awaitable or not.
    """

    def __init__(self, *answers: Any, models: tuple[str, ...] = ("m",), **of_a_model: str):
        self.answers, self.requests, self.headers = list(answers), [], []
        self.app = FastAPI()
        listed = [{"id": name, "object": "model"} | of_a_model for name in models]
        self.app.get("/v1/models")(lambda: {"object": "list", "data": listed})
        self.app.post("/v1/chat/completions")(self._answer)

    async def _answer(self, request: Request) -> Response:
        body = await request.json()
        self.headers.append(dict(request.headers))
        self.requests.append(body)
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        found = found(body) if callable(found) and not isinstance(found, Response) else found
        return respond(await found if asyncio.iscoroutine(found) else found)


class Gate:
    """In front of the embedded teacher: counts requests, and may answer in its place.

    Attributes:
        fault: gets a request's number (from 1) and body; what it gives, or what that gives when it is awaited, stands
            for the teacher's answer, unless it is None.
    """

    def __init__(self) -> None:
        self.requests, self.fault = 0, lambda number, body: None
        self._lock = threading.Lock()
        self.app = FastAPI()
        self.app.middleware("http")(self._count)
        self.app.mount("/", create_app())

    async def _count(self, request: Request, call_next: Callable) -> Response:
        if request.method == "POST":
            with self._lock:
                self.requests += 1
                number = self.requests
            answer = self.fault(number, await request.json())
            answer = await answer if asyncio.iscoroutine(answer) else answer
            if answer is not None:
                return respond(answer)
        return await call_next(request)


def text_of(message: dict) -> str:
    """A message's text, without its pictures."""
    content = message["content"]
    return content if isinstance(content, str) else next(part["text"] for part in content if part["type"] == "text")


class TeacherDouble:
    """All roles of data construction, answered by schema name.

    Attributes:
        requests: (name, body) pairs, the name being a schema's or a chat role's model.
        fault: may answer (name, payload, body) with a (status, JSON) pair.
        delay_s: slows every answer down.
    """

    def __init__(self, serve: Callable[[FastAPI], str]):
        self.requests: list[tuple[str, dict]] = []
        self.fault = lambda name, payload, body: None
        self.delay_s = 0.0
        self.url = serve(Script(self._complete, models=ROLES).app)

    @staticmethod
    def completion(text: str | None, finish: str = "stop") -> tuple[int, dict]:
        """An answer for `fault` to give."""
        return 200, json.loads(respond({"content": text, "finish_reason": finish}).body)

    def called(self, name: str) -> list[dict]:
        """The bodies of one schema or role."""
        return [body for called, body in self.requests if called == name]

    async def _complete(self, body: dict) -> Any:
        await asyncio.sleep(self.delay_s)
        schema = body.get("response_format", {}).get("json_schema", {}).get("name")
        texts = [text_of(message) for message in body["messages"]]
        payload = next((parse_data_block(text) for text in texts if schema and DATA_OPEN in text), {})
        name = schema or body["model"]
        self.requests.append((name, body))
        if (fault := self.fault(name, payload, body)) is not None:
            return fault
        return json.dumps(ANSWERS[schema](payload)) if schema else f"{name} answers: {texts[-1]}"


def _expand(payload: dict) -> dict:
    answer, question, kind = payload["answer"], payload["question"].rstrip("?"), payload["kind"]
    answers = [answer and f"{i}: {answer}" for i in range(payload["n_turns"])]
    return {"turns": [{"user": f"{kind} {i}: {question}, see?", "assistant": a} for i, a in enumerate(answers)]}


def _plan(payload: dict) -> dict:
    last, rewritten = payload["n_turns"] - 1, payload["rewritten"].rstrip("?")
    risks = [1 + 4 * i // max(1, last) for i in range(last + 1)]
    return {"turns": [{"goal": "g", "tactic": "t", "risk": r, "user": f"{rewritten} {r}, see?"} for r in risks]}


def _leak(payload: dict) -> dict:
    """A question with "weak" in it leaks at its second turn."""
    leaks = "weak" in payload["user"] and len(payload["history"]) == 1
    return {"score": 4 if leaks else 1, "rationale": "r"}


def _request_risk(payload: dict) -> dict:
    """A "blunt" last turn is risky as it is, a "mild" one never is, any other one is risky with its history."""
    user = payload["user"]
    risk = 5 if "blunt" in user else 4 if payload["history"] and "mild" not in user else 2
    return {"risk": risk, "rationale": "r"}


def _turn_scores(payload: dict) -> dict:
    safety = 3 if "unsafe" in payload["user"] else 9
    return {"scores": {"safety": safety, "usefulness": 8, "faithfulness": 10}, "rationale": "r"}


ANSWERS = {
    "probe": lambda p: {"benign": f"B {p['question']}?", "obfuscated": f"O {p['question']}?"},
    "expand": _expand,
    "refusal": lambda p: {"refusal": any("cannot" in text for text in p["texts"])},
    "forensics": lambda p: {"description": "d", "dual_use_items": [], "visible_text": [], "missing_precautions": []},
    "intent": lambda p: {
        "strategy": p["strategy"]["name"],
        "rationale": "r",
        "rewritten": f"{p['strategy']['name']} {p['question']}?",
    },
    "plan": _plan,
    "leak": _leak,
    "request_risk": _request_risk,
    "rewrite": lambda p: {"user": f"{p['template']} please"},
    "turn_scores": _turn_scores,
}
