"""A stand-in for tutor and judge: an OpenAI-compatible server that fills in whatever JSON schema it is asked for.

It takes the place of a server that does not answer, so that the rest of a stage can be rehearsed; its scores mean
nothing.
    python -m rehearsal.stand_in --port PORT
"""

import argparse
import json
import random
import time
from typing import Any

import uvicorn
from fastapi import FastAPI, Request

MODEL = "stand-in"
TEXT = "Please look at the picture again and tell me more about it, number "


def filled(schema: dict[str, Any], root: dict[str, Any], rng: random.Random) -> Any:
    """A value that fits a JSON schema: numbers and choices at random, short texts."""
    if "$ref" in schema:
        return filled(root["$defs"][schema["$ref"].rpartition("/")[2]], root, rng)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return rng.choice(schema["enum"])
    if "anyOf" in schema:
        chosen = next((part for part in schema["anyOf"] if part.get("type") != "null"), schema["anyOf"][0])
        return filled(chosen, root, rng)
    kind = schema.get("type")
    if kind == "object":
        return {name: filled(part, root, rng) for name, part in schema.get("properties", {}).items()}
    if kind == "array":
        return [filled(schema.get("items", {}), root, rng) for _ in range(max(1, schema.get("minItems", 1)))]
    if kind == "integer":
        return rng.randint(schema.get("minimum", 0), schema.get("maximum", 10))
    if kind == "number":
        return rng.uniform(schema.get("minimum", 0.0), schema.get("maximum", 10.0))
    if kind == "boolean":
        return True
    return f"{TEXT}{rng.randint(1, 999)}."


def create_app() -> FastAPI:
    """The server as an ASGI application."""
    app = FastAPI()

    @app.get("/v1/models")
    def models() -> dict:
        return {"object": "list", "data": [{"id": MODEL, "object": "model"}]}

    @app.post("/v1/chat/completions")
    async def completions(request: Request) -> dict:
        body = await request.json()
        schema = ((body.get("response_format") or {}).get("json_schema") or {}).get("schema")
        rng = random.Random(json.dumps(body["messages"])[-2000:])
        text = json.dumps(filled(schema, schema, rng)) if schema else TEXT
        words = len(text.split())
        return {
            "id": f"chatcmpl-{time.time_ns()}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": MODEL,
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": words, "completion_tokens": words, "total_tokens": 2 * words},
        }

    return app


def main() -> None:
    """Serves on loopback until stopped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    uvicorn.run(create_app(), host="127.0.0.1", port=parser.parse_args().port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
