"""Model servers that are away, slow, overloaded or someone else's: what passes costs no row, what stays is one line."""

import asyncio
import json
import re
import threading
import time
from collections.abc import Callable

import pytest
import yaml
from fastapi import FastAPI

from http_doubles import Switch
from miniature.faults import FaultPlan
from miniature.teacher import create_app
from safer_steer import servers
from safer_steer.dialogue import Dialogue
from safer_steer.errors import UserError
from safer_steer.llm import EndpointConfig
from safer_steer.servers import ServiceConfig, free_port, start_services
from safer_steer.store import read_jsonl, write_jsonl
from training.grpo.run import check_tutor

STAGES = ("data_construction", "evaluation")
NOBODY = "http://127.0.0.1:9/v1"
TEACHER = ServiceConfig(command=["python", "-m", "miniature.teacher", "--port", "{port}"], serves="mini-judge")


@pytest.fixture
def switch(gate):
    """A `Switch` in front of the gate, on."""
    found = Switch(gate.app)
    found.on()
    yield found
    found.off()


def meanwhile(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("name", STAGES)
def test_down_at_the_start_is_one_line_before_any_work(name, make_stage):
    answer = make_stage(name, NOBODY)()
    assert (answer.code, len(answer.errors)) == (2, 1), answer.stderr
    assert re.search(rf"no model server answers at {NOBODY} .*; start it, or correct base_url", answer.stderr)


@pytest.mark.parametrize("name", STAGES)
def test_away_for_longer_than_all_retries_take_and_nothing_is_lost(
    name, make_stage, gate, switch, quick_retries, tmp_path
):
    """With back-off of milliseconds all six retries of a call are spent within a fifth of a second."""
    whole, stage = make_stage(name, switch.url, tmp_path / "whole"), make_stage(name, switch.url)
    assert whole().code == 0
    gate.requests = 0
    gone = threading.Event()

    async def held() -> None:
        while not gone.is_set():
            await asyncio.sleep(0.01)

    # The teacher answers; from the sixth call on only after it was away.
    gate.fault = lambda number, body: held() if number >= 6 else None

    def restart() -> None:
        while gate.requests < 6:
            time.sleep(0.002)
        switch.off()
        gone.set()
        time.sleep(1.5)
        switch.on()

    waiting = meanwhile(restart)
    answer = stage()
    waiting.join()
    assert answer.code == 0, answer.stderr
    assert stage.rows() == whole.rows()
    records = [json.loads(path.read_text()) for path in stage.folder.rglob("*.json") if path.name[0] in "rij"]
    assert sum(usage["retries"] for record in records for usage in _usages(record.get("usage") or {})) > 6


def _usages(usage: dict) -> list[dict]:
    return [usage] if "retries" in usage else [part for part in usage.values() if isinstance(part, dict)]


@pytest.mark.parametrize("name", STAGES)
def test_away_for_good_stops_the_run_and_the_same_command_goes_on(
    name, make_stage, gate, switch, bench, quick_retries, tmp_path
):
    more_dialogues(bench, 30)
    whole, stage = make_stage(name, switch.url, tmp_path / "whole"), make_stage(name, switch.url)
    assert whole().code == 0
    gate.requests, all_requests = 0, gate.requests
    gate.fault = lambda number, body: None if number < 20 else (503, {"error": "gone"}, {})
    answer = stage()
    assert (answer.code, len(answer.errors)) == (2, 1), answer.stderr
    assert "run the same command again" in answer.errors[0]
    gate.fault, gate.requests = lambda number, body: None, 0
    assert stage().code == 0
    assert stage.rows() == whole.rows()
    assert gate.requests <= all_requests - 10, "what was answered is not asked again"


def more_dialogues(bench, number: int) -> None:
    first = next(read_jsonl(bench, Dialogue))
    write_jsonl(bench, [first.model_copy(update={"id": f"d{n}"}) for n in range(number)])


@pytest.mark.parametrize("name", STAGES)
def test_a_storm_of_429s_costs_no_row(name, make_stage, gate, switch, tmp_path):
    whole, stage = make_stage(name, switch.url, tmp_path / "whole"), make_stage(name, switch.url)
    assert whole().code == 0
    gate.fault = lambda number, body: (429, {"error": "slow down"}, {"retry-after": "0.01"}) if number % 3 else None
    answer = stage()
    assert answer.code == 0, answer.stderr
    assert stage.rows() == whole.rows()


def test_a_slow_server_is_asked_again(make_stage, serve, quick_retries, tmp_path):
    whole = make_stage("evaluation", serve(create_app()), tmp_path / "whole")
    assert whole().code == 0
    plan, drawn = FaultPlan({"hang": 0.25}), []
    draw = plan.draw
    plan.draw = lambda content: drawn.append(draw(content)) or drawn[-1]
    slow = make_stage("evaluation", serve(create_app(plan)))
    answer = slow("models.one.endpoint.timeout_s=1", "judge.timeout_s=1")
    assert answer.code == 0, answer.stderr
    assert slow.rows() == whole.rows()
    assert "hang" in drawn


def test_a_tutor_that_is_away_or_another_model_is_said_before_any_engine_starts(serve):
    with pytest.raises(UserError, match=r"tutor: no model server answers at .*TUTOR_API_BASE_URL"):
        asyncio.run(check_tutor(EndpointConfig(model="mini-tutor", base_url=NOBODY)))
    url = serve(create_app())
    with pytest.raises(UserError, match=r"does not serve 'another'; it serves .*mini-tutor"):
        asyncio.run(check_tutor(EndpointConfig(model="another", base_url=url)))
    asyncio.run(check_tutor(EndpointConfig(model="mini-tutor", base_url=url)))


@pytest.mark.parametrize("name", STAGES)
def test_another_model_at_the_address_is_said_before_any_call(name, make_stage, gate, switch):
    role = "roles.generator.model" if name == "data_construction" else "models.one.endpoint.model"
    stage = make_stage(name, switch.url)
    answer = stage(f"{role}=another")
    assert (answer.code, len(answer.errors), gate.requests) == (2, 1, 0), answer.stderr
    assert "does not serve 'another'; it serves mini-generator" in answer.stderr
    assert not (stage.folder / "one" / "infer.json").exists(), "the corrected command may use the folder"


def test_a_port_that_is_taken_in_the_last_moment(serve, monkeypatch, tmp_path):
    """Its taker answers 200 to everything; ours starts on another port, or says what stands in its way."""
    taker = FastAPI()
    taker.get("/{path:path}")(lambda: "hello")
    taken, ports = int(serve(taker).split(":")[2].split("/")[0]), []
    monkeypatch.setattr(servers, "free_port", lambda: taken if not ports or ports.pop() == taken else free_port())
    ports[:] = [0, taken]  # taken once more, then a free one
    with start_services({"teacher": TEACHER}, tmp_path) as urls:
        assert str(taken) not in urls["teacher"]
    monkeypatch.setattr(servers, "free_port", lambda: taken)
    with (
        pytest.raises(UserError, match=r"server teacher ended with code \d+; log .*address already in use"),
        start_services({"teacher": TEACHER}, tmp_path),
    ):
        pass


def test_a_server_that_dies_under_the_run_is_told_with_its_log(make_stage, bench, quick_retries):
    more_dialogues(bench, 24)
    stage = make_stage("evaluation", "service:teacher")
    code = (
        "import os\n"
        "from miniature import teacher\n"
        "def answer(body):\n"
        "    print('torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB', flush=True)\n"
        "    os._exit(1)\n"
        "teacher.answer = answer\n"
        "teacher.main()\n"
    )
    data = yaml.safe_load(stage.config.read_text())
    data["services"] = {"teacher": {"command": ["python", "-c", code, "--port", "{port}"], "serves": "mini-blue"}}
    data["models"]["one"]["endpoint"] |= {"max_retries": 1, "outage_wait_s": 0}
    stage.config.write_text(yaml.safe_dump(data))
    answer = stage()
    assert (answer.code, len(answer.errors)) == (2, 1), answer.stderr
    for part in ("server teacher ended with code 1; log", "CUDA out of memory"):
        assert part in answer.errors[0]
    assert "it ran out of memory: give it more memory, or a smaller model" in answer.errors[0]
