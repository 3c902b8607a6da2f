"""A teacher double at the network's edge: a real HTTP server that answers by schema name and records its requests."""

import json
import time
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from PIL import Image

from data_construction.config import DataConfig
from safer_steer.prompts import DATA_OPEN, parse_data_block

ROLES = ("generator", "target", "red", "blue", "evaluator")


def text_of(message: dict) -> str:
    content = message["content"]
    return content if isinstance(content, str) else next(part["text"] for part in content if part["type"] == "text")


class TeacherDouble:
    """`requests` are (name, body) pairs, name being a schema's or a chat role's model.

    `fault` may answer (name, payload, body) with a (status, JSON) pair; `delay_s` slows every answer down.
    """

    def __init__(self, serve):
        self.requests: list[tuple[str, dict]] = []
        self.fault = lambda name, payload, body: None
        self.delay_s = 0.0
        app = FastAPI()
        app.get("/v1/models")(lambda: {"object": "list", "data": [{"id": name, "object": "model"} for name in ROLES]})
        app.post("/v1/chat/completions")(self._complete)
        self.url = serve(app)

    @staticmethod
    def completion(text: str | None, finish: str = "stop") -> tuple[int, dict]:
        """An answer for `fault` to give."""
        return 200, completion(text, finish)

    def called(self, name: str) -> list[dict]:
        return [body for called, body in self.requests if called == name]

    def _complete(self, body: dict):
        time.sleep(self.delay_s)
        schema = body.get("response_format", {}).get("json_schema", {}).get("name")
        texts = [text_of(message) for message in body["messages"]]
        payload = next((parse_data_block(text) for text in texts if schema and DATA_OPEN in text), {})
        name = schema or body["model"]
        self.requests.append((name, body))
        if (fault := self.fault(name, payload, body)) is not None:
            return JSONResponse(fault[1], status_code=fault[0])
        text = json.dumps(ANSWERS[schema](payload)) if schema else f"{name} answers: {texts[-1]}"
        return completion(text)


def completion(text: str | None, finish: str = "stop") -> dict:
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "double",
        "choices": [{"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }


def _expand(payload: dict) -> dict:
    answer, question = payload["answer"], payload["question"].rstrip("?")
    return {
        "turns": [
            {"user": f"{payload['kind']} {i}: {question}, see?", "assistant": answer and f"{i}: {answer}"}
            for i in range(payload["n_turns"])
        ]
    }


def _plan(payload: dict) -> dict:
    last, rewritten = payload["n_turns"] - 1, payload["rewritten"].rstrip("?")
    risks = [1 + 4 * i // max(1, last) for i in range(last + 1)]
    return {"turns": [{"goal": "g", "risk": r, "user": f"{rewritten} {r}, see?"} for r in risks]}


def _leak(payload: dict) -> dict:
    """A question with "weak" in it leaks at its second turn."""
    leaks = "weak" in payload["user"] and len(payload["history"]) == 1
    return {"score": 4 if leaks else 1, "rationale": "r"}


def _request_risk(payload: dict) -> dict:
    """A "blunt" last turn is risky as it is, a "mild" one never is, any other one is risky with its history."""
    user = payload["user"]
    risk = 5 if "blunt" in user else 4 if payload["history"] and "mild" not in user else 2
    return {"risk": risk, "rationale": "r"}


ANSWERS = {
    "probe": lambda p: {"benign": f"B {p['question']}?", "obfuscated": f"O {p['question']}?"},
    "expand": _expand,
    "refusal": lambda p: {"refusal": any("cannot" in text for text in p["texts"])},
    "forensics": lambda p: {"description": "d", "dual_use_items": [], "visible_text": []},
    "intent": lambda p: {"rationale": "r", "rewritten": f"{p['strategy']['name']} {p['question']}?"},
    "plan": _plan,
    "leak": _leak,
    "request_risk": _request_risk,
    "rewrite": lambda p: {"user": f"{p['template']} please"},
    "turn_scores": lambda p: {
        "scores": {"safety": 3 if "unsafe" in p["user"] else 9, "usefulness": 8, "faithfulness": 10},
        "rationale": "r",
    },
}


@pytest.fixture
def double(serve):
    return TeacherDouble(serve)


@pytest.fixture
def make_seeds(tmp_path):
    """Writes a seeds file with pictures of distinct colours; `questions` gives the seeds."""

    def make(name: str, questions: list[str], first: int = 0, **extra) -> Path:
        folder = tmp_path / "world" / name
        folder.mkdir(parents=True, exist_ok=True)
        rows = []
        for number, question in enumerate(questions, start=first):
            Image.new("RGB", (40, 40), (number * 7 % 256, number // 36, 90)).save(folder / f"{number}.png")
            seed = {"id": f"s{number}", "source": "made", "image": f"{number}.png", "question": question}
            rows.append(seed | extra)
        path = folder / "seeds.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return make


@pytest.fixture
def make_config(double, tmp_path):
    """A config whose every role is the double; `changes` replace top-level keys."""

    def make(sources: dict, **changes) -> DataConfig:
        data = {
            "root": str(tmp_path / "out"),
            "sources": sources,
            "turns": {kind: {"min": 2, "max": 4} for kind in ("benign", "obfuscated", "red_team")},
            "red_team": {"strategies_per_seed": 1},
            "quality": {"near_duplicates": None},
            "roles": {role: {"model": role, "base_url": double.url, "max_retries": 0} for role in ROLES},
            "concurrency": 4,
            "max_transport_rate": 1.0,
        }
        return DataConfig.model_validate(data | changes)

    return make
