"""The embedded teacher: an OpenAI-compatible server that plays every teacher role of the method in the miniature world.

Input: POST /v1/chat/completions (a JSON schema's name picks the task, the prompt's data block holds its variables,
pictures are
data URLs); GET /v1/models lists one model a role. Output: chat completions.
    python -m miniature.teacher --port 8000 [--faults rate_limit=0.1,torn=0.05] [--fault-seed 0]
"""

import argparse
import asyncio
import json
import random
import time
from functools import lru_cache
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.types import Receive, Send
from starlette.types import Scope as HttpScope

from miniature.faults import FaultPlan
from miniature.roles import NEED_PICTURE, UnknownRequest, answer_structured, blue_answer, in_format
from miniature.world import Scene, read_picture
from safer_steer.data_block import DATA_OPEN, parse_data_block
from safer_steer.dialogue import stable_hash
from safer_steer.images import load_image

MODELS = ("mini-generator", "mini-red", "mini-blue", "mini-evaluator", "mini-tutor", "mini-judge", "mini-attacker")
HANG_S = 120.0
RETRY_AFTER_S = "1"  # what a 429 asks for


def create_app(faults: FaultPlan | None = None) -> FastAPI:
    """The server as an ASGI application.

    Args:
        faults: which requests go wrong, and how.
    """
    app = FastAPI()
    faults = faults or FaultPlan()

    @app.get("/v1/models")
    async def models() -> dict:
        return {"object": "list", "data": [{"id": name, "object": "model", "owned_by": "miniature"} for name in MODELS]}

    @app.post("/v1/chat/completions")
    async def completions(request: Request) -> Response:
        body = await request.json()
        if body.get("model") not in MODELS:
            return _error(404, f"the model {body.get('model')!r} does not exist; models: {', '.join(MODELS)}")
        fault = faults.draw(body)
        if fault == "rate_limit":
            return _error(429, "rate limit reached", {"retry-after": RETRY_AFTER_S})
        if fault == "server_error":
            return _error(503, "overloaded")
        if fault == "reset":
            return _Cut()
        if fault == "hang":
            await asyncio.sleep(HANG_S)
        try:
            text = answer(body)
        except (UnknownRequest, KeyError, ValueError) as error:
            return _error(400, f"the embedded teacher cannot answer this: {error}")
        return JSONResponse(_completion(body["model"], text, fault))

    return app


class _Cut(Response):
    """The head of an answer, and then the connection ends: the server closes one whose answer is not whole."""

    async def __call__(self, scope: HttpScope, receive: Receive, send: Send) -> None:
        """Sends less than the head promises."""
        head = [(b"content-type", b"application/json"), (b"content-length", b"1000")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": b"{", "more_body": True})


def answer(body: dict[str, Any]) -> str:
    """The answer text to one chat-completions request."""
    texts, pictures = _read_messages(body["messages"])
    scene = _scene(pictures[0]) if pictures else None
    schema = (body.get("response_format") or {}).get("json_schema")
    if schema is None:
        if not pictures:
            raise UnknownRequest("the blue role needs a picture")
        users = [text for text, message in zip(texts, body["messages"], strict=True) if message["role"] == "user"]
        return in_format(blue_answer(users, scene, _rng(texts, scene, body)), texts[0])
    place = next((index for index, text in enumerate(texts) if DATA_OPEN in text), None)
    if place is None:
        raise UnknownRequest("the prompt has no data block")
    role = "attacker" if (body["model"], schema["name"]) == ("mini-attacker", "tutor") else schema["name"]
    if not pictures and role in NEED_PICTURE:
        raise UnknownRequest(f"{role} needs a picture; the request has none")
    # A re-ask, which repeats the prompt with what was wrong, gets the answer that the prompt alone gets.
    rng = _rng(texts[: place + 1], scene, body)
    return json.dumps(answer_structured(role, parse_data_block(texts[place]), scene, rng))


def _rng(texts: list[str], scene: Scene | None, body: dict[str, Any]) -> random.Random:
    return random.Random(stable_hash(texts, [str(scene)], body.get("seed")))


def _read_messages(messages: list[dict]) -> tuple[list[str], list[str]]:
    texts, pictures = [], []
    for message in messages:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        texts.append("".join(part["text"] for part in parts if part["type"] == "text"))
        pictures += [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    return texts, pictures


@lru_cache(maxsize=4096)
def _scene(picture: str) -> Scene | None:
    if not picture.startswith("data:image/"):  # a path would be read from this machine's disk
        raise UnknownRequest("a picture must come as a data URL (data:image/png;base64,...)")
    return read_picture(load_image(picture))


def _completion(model: str, text: str, fault: str | None) -> dict:
    message: dict[str, Any] = {"role": "assistant", "content": text}
    finish = "stop"
    if fault == "fenced":
        message["content"] = f"Here is my answer.\n```json\n{text}\n```\nThat is all."
    elif fault == "torn":
        message["content"] = text[: max(1, len(text) * 2 // 3)]
    elif fault == "out_of_range":
        message["content"] = _out_of_range(text)
    elif fault == "content_filter":
        message["content"], finish = None, "content_filter"
    elif fault == "empty":
        message["content"] = ""
    elif fault == "reasoning_only":
        message |= {"content": None, "reasoning_content": text}
    words = len(text.split())
    return {
        "id": f"chatcmpl-{time.time_ns()}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {"prompt_tokens": words, "completion_tokens": words, "total_tokens": 2 * words},
    }


def _out_of_range(text: str) -> str:
    """Every number of a JSON answer becomes 99; other text stays."""
    try:
        return json.dumps(json.loads(text, parse_int=lambda _: 99))
    except ValueError:
        return text


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse(
        {"error": {"message": message, "type": "miniature", "code": status}}, status_code=status, headers=headers
    )


def main() -> None:
    """Serves on loopback until stopped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--faults", default="", help="NAME=RATE,... of the faults in miniature/faults.py")
    parser.add_argument("--fault-seed", type=int, default=0)
    arguments = parser.parse_args()
    app = create_app(FaultPlan.parse(arguments.faults, arguments.fault_seed))
    uvicorn.run(app, host="127.0.0.1", port=arguments.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
