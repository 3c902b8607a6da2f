"""A scripted chat-completions server over real HTTP, and one call of a client against it."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from safer_steer.llm import EndpointConfig, LLMClient, ResponseCache
from safer_steer.llm import retry as retry_module


def respond(answer: Any) -> Response:
    """A response out of a script's item.

    A text becomes a completion with that content; a dict one with these message fields (and `finish_reason`); a tuple
    an error: (status, message or body, headers).
    """
    if isinstance(answer, Response):
        return answer
    if isinstance(answer, tuple):
        status, problem, headers = (*answer, {})[:3]
        body = {"error": {"message": problem}} if isinstance(problem, str) else problem
        return JSONResponse(body, status_code=status, headers=headers)
    message = {"role": "assistant", "finish_reason": "stop"} | (
        {"content": answer} if isinstance(answer, str) else answer
    )
    choice = {"index": 0, "finish_reason": message.pop("finish_reason"), "message": message}
    usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    return JSONResponse({"id": "1", "object": "chat.completion", "model": "m", "choices": [choice], "usage": usage})


class Script:
    """A server that gives its answers in order (the last one again and again) and keeps the requests.

    An answer may be a function of the request's body, awaitable or not.
    """

    def __init__(self, *answers: Any):
        self.answers, self.requests, self.headers = list(answers), [], []
        self.app = FastAPI()

        @self.app.post("/v1/chat/completions")
        async def answer(request: Request) -> Response:
            body = await request.json()
            self.requests.append(body)
            self.headers.append(dict(request.headers))
            found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            found = found(body) if callable(found) and not isinstance(found, Response) else found
            return respond(await found if asyncio.iscoroutine(found) else found)

        @self.app.get("/v1/models")
        async def models() -> dict:
            return {"object": "list", "data": [{"id": "m", "object": "model", "created": 1, "owned_by": "x"}]}


class FakeClock:
    """Time that passes only by sleeping."""

    def __init__(self):
        self.now, self.slept = 1000.0, []

    def __call__(self) -> float:
        """Seconds."""
        return self.now

    async def sleep(self, seconds: float) -> None:
        """Lets others run, and time pass."""
        self.slept.append(seconds)
        until = self.now + seconds
        await asyncio.sleep(0)
        self.now = max(self.now, until)


@pytest.fixture
def clock() -> FakeClock:
    """A `FakeClock`."""
    return FakeClock()


@pytest.fixture
def script() -> Callable[..., Script]:
    """Makes a `Script`."""
    return Script


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back-off of a millisecond."""
    monkeypatch.setattr(retry_module, "BASE_DELAY_S", 0.001)


@pytest.fixture
def ask(serve: Callable[[FastAPI], str], quick_retries: None) -> Callable:
    """Plays a script, or answers, to one call of a client; gives the result, the client and the script."""

    def run(answers: Any, call: Callable, cache: ResponseCache | None = None, **config: Any) -> tuple:
        played = answers if isinstance(answers, Script) else Script(*answers)
        client = LLMClient("judge", EndpointConfig(model="m", base_url=serve(played.app), **config), cache)

        async def main() -> Any:
            try:
                return await call(client)
            finally:
                await client.close()

        return asyncio.run(main()), client, played

    return run
