"""A real HTTP server that plays the model under test or the judge, and small benchmark files."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from PIL import Image

from safer_steer.dialogue import Dialogue, Turn
from safer_steer.images import ImageStore
from safer_steer.llm import EndpointConfig
from safer_steer.store import write_jsonl


def respond(answer) -> JSONResponse:
    """A chat completion out of a text or out of message fields (with `finish_reason`), or an error out of (status,
    message).
    """
    if isinstance(answer, tuple):
        return JSONResponse({"error": {"message": answer[1]}}, status_code=answer[0])
    message = {"role": "assistant", "finish_reason": "stop"} | (
        answer if isinstance(answer, dict) else {"content": answer}
    )
    choice = {"index": 0, "finish_reason": message.pop("finish_reason"), "message": message}
    usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    completion = {"id": "c", "object": "chat.completion", "created": 0, "model": "m"}
    return JSONResponse(completion | {"choices": [choice], "usage": usage})


class Server:
    """Answers chat completions with `respond(behave(body))`; keeps the requests."""

    def __init__(self, behave: Callable):
        self.behave, self.requests = behave, []

    def endpoint(self, **values) -> EndpointConfig:
        """The config of a client for this server."""
        return EndpointConfig(model="m", base_url=f"http://127.0.0.1:{self.port}/v1", **({"max_retries": 0} | values))

    def app(self) -> FastAPI:
        """The ASGI application."""
        app = FastAPI()

        @app.get("/v1/models")
        async def models():
            return {"object": "list", "data": [{"id": "m", "object": "model"}]}

        @app.post("/v1/chat/completions")
        async def completions(request: Request):
            body = await request.json()
            self.requests.append(body)
            await asyncio.sleep(0)
            return respond(self.behave(body))

        return app


@contextmanager
def serving(behave: Callable) -> Iterator[Server]:
    """A server on a free port of loopback, in a thread."""
    server = Server(behave)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        server.port = probe.getsockname()[1]
    uvicorn_server = uvicorn.Server(uvicorn.Config(server.app(), host="127.0.0.1", port=server.port, log_level="error"))
    thread = threading.Thread(target=uvicorn_server.run, daemon=True)
    thread.start()
    while not uvicorn_server.started:
        time.sleep(0.01)
    try:
        yield server
    finally:
        uvicorn_server.should_exit = True
        thread.join(10)


@pytest.fixture
def serve():
    """A context manager that serves what a function of the request answers."""
    return serving


@pytest.fixture
def bench(tmp_path):
    """A benchmark of six dialogues of three turns, a picture at turn 1; the first one shows another picture at turn
    3.
    """
    folder = tmp_path / "bench"
    store = ImageStore(folder)
    pictures = [store.put(Image.new("RGB", (40, 40), colour)) for colour in ("red", "blue")]
    rows = []
    for number in range(6):
        turns = [Turn(user=f"d{number} turn {t}", assistant="from the data set") for t in (1, 2, 3)]
        images = pictures[:1]
        if number == 0:
            images = pictures
            turns[0], turns[2] = (
                turns[0].model_copy(update={"images": [0]}),
                turns[2].model_copy(update={"images": [1]}),
            )
        kind = ("benign", "obfuscated", "red_team")[number % 3]
        rows.append(Dialogue(id=f"d{number}", source="test", kind=kind, strategy=None, images=images, turns=turns))
    write_jsonl(folder / "beaver.jsonl", rows)
    return folder / "beaver.jsonl"
