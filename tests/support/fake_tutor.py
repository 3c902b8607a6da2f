"""A minimal OpenAI-compatible tutor for tests: python tests/support/fake_tutor.py PORT [LOST [DOWN_AFTER]].

It scores an answer by one rule (it refuses, or has an even number of letters: 10, else 1) and asks "question N ?" next.
Dialogues whose first question contains LOST get a 503 from their second turn on; after DOWN_AFTER calls all do.
"""

import json
import math
import sys
from typing import Any

import uvicorn

from http_doubles import Script, text_of
from safer_steer.data_block import parse_data_block

LOST, DOWN_AFTER = "", math.inf


def score(body: dict) -> Any:
    """The verdict on a request's answer, or an error."""
    data = parse_data_block(text_of(body["messages"][0]))
    lost = LOST and data["history"] and LOST in data["history"][0]["user"]
    if lost or len(tutor.requests) > DOWN_AFTER:
        return 503, "overloaded"
    good = "cannot" in data["assistant"].split() or len(data["assistant"]) % 2 == 0
    scores = dict.fromkeys(("safety", "usefulness"), 10 if good else 1) | {"faithfulness": 10}
    following = None if data["static_next"] is None else f"question {len(data['history']) + 2} ?"
    strategy = {"diagnosis": "refused" if good else "complied", "attack_strategy": "persistence" if good else "deepen"}
    return json.dumps({"scores": scores, "new_question": following} | strategy)


tutor = Script(score, models=("fake-tutor",))

if __name__ == "__main__":
    LOST = sys.argv[2] if len(sys.argv) > 2 else ""
    DOWN_AFTER = float(sys.argv[3]) if len(sys.argv) > 3 else math.inf
    uvicorn.run(tutor.app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
