"""Odd rows in a stage's input: broken ones are rejected or named, odd characters go through, others are untouched."""

import json

from fastapi.responses import Response

from builders import dialogue
from http_doubles import respond, text_of
from safer_steer.dialogue import Dialogue
from safer_steer.store import read_jsonl, write_jsonl

LINES, HALF = "two\u2028lines \u0085 here", "half \ud83d emoji"
NOT_UTF8 = '{"id": "x", "question": "café"}\n'.encode("latin-1")
JUDGED = json.dumps({"harmlessness": 3, "helpfulness": 3})


def echo(number: int, body: dict) -> Response:
    """The judge's verdict, or the last user text."""
    return respond(JUDGED if body.get("response_format") else text_of(body["messages"][-1]))


def asked(name: str, text: str, picture: str | None = None) -> Dialogue:
    return dialogue(name, text, images=[picture] if picture else [])


def test_data_construction(make_stage, seeds, gate, serve, tmp_path):
    url = serve(gate.app)
    whole, stage = make_stage("data_construction", url, tmp_path / "whole"), make_stage("data_construction", url)
    assert whole().code == 0
    good = seeds.read_bytes()
    (seeds.parent / "broken.png").write_bytes(b"\x89PNG no picture")
    rows = [
        b'{"id": "torn", "image":\n',
        NOT_UTF8,
        json.dumps({"id": "half", "image": "a.png", "question": HALF}).encode() + b"\n",
        json.dumps({"id": "broken", "image": "broken.png", "question": "q"}).encode() + b"\n",
    ]
    seeds.write_bytes(b"".join(rows) + good)
    answer = stage()
    assert answer.code == 0, answer.stderr
    assert stage.rows()[0] == whole.rows()[0], "the good rows are what they were"
    reasons = {row["id"]: row["reason"] for row in stage.rows()[1] if row["id"].startswith("ingest/")}
    assert sorted(reasons.values()) == ["bad record"] * 3 + ["unusable picture"], reasons


def test_evaluation(make_stage, bench, gate, serve):
    url = serve(gate.app)
    gate.fault = echo
    stage = make_stage("evaluation", url)
    (bench.parent / "broken.png").write_bytes(b"\x89PNG no picture")
    rows = [asked("lines", LINES), asked("half", HALF), asked("broken", "q", "broken.png")]
    write_jsonl(bench, rows)
    answer = stage()
    assert answer.code == 0, answer.stderr
    (lines,) = stage.rows()[0]
    assert lines["turns"][0]["assistant"] == LINES
    reasons = {row["id"]: row["reason"] for row in read_jsonl(stage.folder / "one" / "rejects.jsonl")}
    number = bench.read_bytes().count(b"\n")
    assert reasons == {f"{bench.name}:2": "text is not Unicode", "broken": "unusable picture"}, number
    assert "2 rejected, 1 unusable picture, 1 text is not Unicode" in answer.stdout.replace("(", "").replace(")", "")
    assert all(row["scores"] == row["scores"] | json.loads(JUDGED) for row in stage.rows()[1])
