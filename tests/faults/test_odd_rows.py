"""Odd rows in a stage's input: broken ones are rejected or named, odd characters go through, others are untouched."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from fastapi.responses import Response
from PIL import Image

from builders import dialogue
from http_doubles import respond, text_of
from miniature.student import build_processor
from safer_steer.config import load_config
from safer_steer.dialogue import Dialogue
from safer_steer.images import ImageStore
from safer_steer.store import read_jsonl, write_jsonl
from safer_steer_verl.settings import DataConfig
from training.grpo.prepare import PromptBuilder
from training.grpo.prepare import prepare as prepare_grpo
from training.sft.config import SftConfig
from training.sft.data import prepare as prepare_sft

LINES, HALF = "two\u2028lines \u0085 here", "half \ud83d emoji"
NOT_UTF8 = '{"id": "x", "question": "café"}\n'.encode("latin-1")
JUDGED = json.dumps({"harmlessness": 3, "helpfulness": 3})


def echo(number: int, body: dict) -> Response:
    """The judge's verdict, or the last user text."""
    return respond(JUDGED if body.get("response_format") else text_of(body["messages"][-1]))


def asked(name: str, *texts: str, picture: str | None = None, answer: str | None = None) -> Dialogue:
    turns = [{"user": text, "assistant": answer} for text in texts]
    return dialogue(name, *turns, images=[picture] if picture else [])


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
    rows = [asked("lines", LINES), asked("half", HALF), asked("broken", "q", picture="broken.png")]
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


@pytest.fixture(scope="module")
def processor():
    """The miniature's."""
    return build_processor()


def test_sft(processor, tmp_path):
    path = tmp_path / "steer_sft.jsonl"
    (tmp_path / "broken.png").write_bytes(b"\x89PNG no picture")
    good, lines = asked("good", "Hi", answer="Hello"), asked("lines", LINES, answer=LINES)
    bad = [
        asked("half", HALF, answer="Hello"),
        asked("half answer", "Hi", answer=HALF),
        asked("broken", "Hi", picture="broken.png", answer="Hello"),
    ]
    write_jsonl(path, [good, *bad, lines])
    config = load_config(SftConfig, "configs/sft/miniature.yaml", [f"data={path}"])
    prepared = prepare_sft(config, processor)
    assert {row["id"]: row["reason"] for row in prepared.rejects} == {
        "steer_sft.jsonl:2": "text is not Unicode",
        "steer_sft.jsonl:3": "text is not Unicode",
        "broken": "unusable picture",
    }
    assert LINES in processor.tokenizer.decode(prepared.rows[1]["input_ids"])
    write_jsonl(path, [good, lines])
    assert prepare_sft(config, processor).rows == prepared.rows


def test_grpo(processor, tmp_path):
    picture = ImageStore(tmp_path).put(Image.new("RGB", (84, 84)))
    (tmp_path / "broken.png").write_bytes(b"\x89PNG no picture")
    path = Path(tmp_path / "steer_rl.jsonl")
    rows = [asked("lines", LINES, "b", picture=picture), asked("half", HALF, "b", picture=picture)]
    write_jsonl(path, [*rows, asked("broken", "a", "b", picture="broken.png")])
    data = DataConfig(source=str(path), max_pixels=7056)
    counts = prepare_grpo(PromptBuilder(processor, data, 200), [str(path)], tmp_path / "out")
    reasons = {"text is not Unicode": 1, "picture missing or unusable": 1}
    assert (counts["kept"], counts["reasons"]) == (1, reasons)
    table = pq.read_table(tmp_path / "out" / "train.parquet").to_pylist()
    assert [row["prompt"][0]["content"].removeprefix("<image>") for row in table] == [LINES]
