"""A chat-completions server that does nothing but wait: the same answer to everyone after a fixed latency.

Input: POST /v1/chat/completions, GET /v1/models. Output: a completion whose content is a small JSON object; a request
with the word STALL in it is answered after an hour. As light as it gets, so that a benchmark measures the client.
    python -m benchmarks.fixed_latency_server --port 8000 --latency 0.05
"""

import argparse
import asyncio
import json
from typing import Any

import uvicorn

STALL, STALL_S = "STALL", 3600.0
CONTENT = json.dumps({"diagnosis": "word " * 80, "score": 8})
BODY = json.dumps(
    {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "bench",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": CONTENT}}],
        "usage": {"prompt_tokens": 300, "completion_tokens": 100, "total_tokens": 400},
    }
).encode()
MODELS = json.dumps({"object": "list", "data": [{"id": "bench", "object": "model", "owned_by": "bench"}]}).encode()


def create_app(latency_s: float) -> Any:
    """The server as a bare ASGI application; `latency_s` in seconds."""

    async def app(scope: dict, receive: Any, send: Any) -> None:
        message, body = {"more_body": True}, b""
        while message.get("more_body"):
            message = await receive()
            body += message.get("body", b"")
        answer = MODELS if scope["method"] == "GET" else BODY
        if answer is BODY:
            await asyncio.sleep(STALL_S if STALL.encode() in body else latency_s)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    return app


def main() -> None:
    """Serves on loopback until stopped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--latency", type=float, required=True, help="seconds")
    arguments = parser.parse_args()
    app = create_app(arguments.latency)
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=arguments.port,
        log_level="error",
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=1,
    )


if __name__ == "__main__":
    main()
