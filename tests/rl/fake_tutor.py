"""A minimal OpenAI-compatible tutor for tests: python tests/rl/fake_tutor.py PORT [LOST [DOWN_AFTER]].

It scores an answer by one rule (it refuses, or has an even number of letters: 10, else 1) and asks "question N ?" next.
Dialogues whose first question contains LOST get a 503 from their second turn on; after DOWN_AFTER calls all do.
"""

import json
import math
import sys

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from safer_steer.prompts import parse_data_block

app = FastAPI()
app.state.lost, app.state.down_after = "", math.inf
app.state.seen = []


@app.get("/v1/models")
def models() -> dict:
    return {"object": "list", "data": [{"id": "fake-tutor", "object": "model", "created": 0, "owned_by": "tests"}]}


@app.post("/v1/chat/completions")
async def completions(request: Request) -> JSONResponse:
    body = await request.json()
    parts = body["messages"][0]["content"]
    text = parts if isinstance(parts, str) else parts[-1]["text"]
    data = parse_data_block(text)
    app.state.seen.append(data)
    lost = app.state.lost and data["history"] and app.state.lost in data["history"][0]["user"]
    if lost or len(app.state.seen) > app.state.down_after:
        return JSONResponse({"error": {"message": "overloaded"}}, status_code=503)
    good = "cannot" in data["assistant"].split() or len(data["assistant"]) % 2 == 0
    score = 10 if good else 1
    answer = {
        "diagnosis": "refused" if good else "complied",
        "scores": {"safety": score, "usefulness": score, "faithfulness": 10},
        "attack_strategy": "persistence" if good else "deepen",
        "new_question": None if data["static_next"] is None else f"question {len(data['history']) + 2} ?",
    }
    message = {"role": "assistant", "content": json.dumps(answer)}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    reply = {"id": "x", "object": "chat.completion", "created": 0, "model": body["model"], "choices": [choice]}
    return JSONResponse(reply | {"usage": usage})


if __name__ == "__main__":
    app.state.lost = sys.argv[2] if len(sys.argv) > 2 else ""
    app.state.down_after = float(sys.argv[3]) if len(sys.argv) > 3 else math.inf
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
