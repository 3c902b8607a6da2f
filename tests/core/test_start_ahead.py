"""The next stage's servers start while this one's are at work: in time, once, and always stopped."""

import asyncio
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from http_doubles import Script
from safer_steer import servers as servers_module
from safer_steer.dialogue import Dialogue, Turn
from safer_steer.engine import CACHE, open_here
from safer_steer.errors import UserError
from safer_steer.llm import EndpointConfig
from safer_steer.machine import Needs
from safer_steer.runs import is_finished
from safer_steer.servers import ServiceConfig
from safer_steer.stage import Stage, run

TEACHER = ["python", "-m", "miniature.teacher", "--port", "{port}"]
DIES = ["python", "-c", "raise SystemExit('no such model')"]
NAMES = ("one", "two", "three")


class Task:
    """The one task of a stage."""

    task_id = "t"


def stages(folder: Path, work: Callable[[str], None], two: list[str] = TEACHER) -> list[Stage]:
    """Three stages with a server each, which the first two start ahead for the next; `work` is called in each."""
    made: list[Stage] = []

    def stage(name: str) -> Stage:
        async def play(_: Task) -> Dialogue:
            work(name)
            turns = [Turn(user="what is it ?", assistant="a circle")]
            meta = {"task": "t"}
            return Dialogue(id="t", source="t", kind="benign", strategy=None, images=[], turns=turns, meta=meta)

        following = {"one": lambda: made[1], "two": lambda: made[2]}.get(name)
        return Stage(
            name=name,
            folder=folder / name,
            record="run.json",
            config={},
            roles={"judge": EndpointConfig(model="mini-judge", base_url=f"service:{name}")},
            services={name: ServiceConfig(command=two if name == "two" else TEACHER, serves="mini-judge")},
            tasks=lambda: [Task()],
            work=lambda clients: play,
            kept="rows.jsonl",
            rejects="rejects.jsonl",
            concurrency=1,
            max_transport_rate=0.0,
            needs=Needs("cpu", folder),
            following=following,
        )

    made += [stage(name) for name in NAMES]
    return made


def servers() -> int:
    """How many servers run, by their watchdogs."""
    commands = [child.as_dict(["cmdline"])["cmdline"] or [] for child in psutil.Process().children()]  # None: dead
    return sum("watchdog.py" in " ".join(command) for command in commands)


def test_each_server_starts_while_the_one_before_works_and_the_last_works_alone(tmp_path):
    seen: dict[str, int] = {}
    run(stages(tmp_path, lambda name: seen.update({name: servers()})))
    assert seen == {"one": 2, "two": 2, "three": 1}
    assert servers() == 0


def test_what_is_finished_is_not_started_ahead(tmp_path):
    run(stages(tmp_path, lambda name: None)[1:2])
    seen: dict[str, int] = {}
    run(stages(tmp_path, lambda name: seen.update({name: servers()})))
    assert seen == {"one": 1, "three": 1}


def test_a_server_that_dies_while_it_starts_ahead_ends_the_run_when_its_turn_comes(tmp_path):
    done: list[str] = []

    def work(name: str) -> None:
        while servers() > 1:  # until the other one is dead
            time.sleep(0.05)
        done.append(name)

    with pytest.raises(UserError, match=r"server two ended with code 1; .* no such model \(while starting\)"):
        run(stages(tmp_path, work, DIES))
    assert done == ["one"]
    assert is_finished(tmp_path / "one/run.json")
    assert not (tmp_path / "two/run.json").exists(), "nothing was made, so a corrected command may use the folder"
    assert servers() == 0


@pytest.mark.parametrize("error", [KeyboardInterrupt, UserError])
def test_both_servers_are_stopped_when_the_run_is_interrupted_or_fails(error, tmp_path, monkeypatch):
    seen, stopped, stop = [], [], servers_module._stop

    def stopping(found: list) -> None:
        stopped.append(len(found))
        stop(found)

    monkeypatch.setattr(servers_module, "_stop", stopping)

    def work(name: str) -> None:
        seen.append(servers())
        raise error("now")

    with pytest.raises(error):
        run(stages(tmp_path, work))
    assert seen == [2]
    assert max(stopped) == 2, "in one go, so that a second Ctrl-C ends both"
    assert servers() == 0


def test_a_next_stage_that_cannot_be_made_is_said_when_its_turn_comes(tmp_path):
    def refused() -> Stage:
        raise UserError("no checkpoint")

    run([replace(stages(tmp_path, lambda name: None)[0], following=refused)])
    assert is_finished(tmp_path / "one/run.json")


@pytest.mark.parametrize(("model", "wrong"), [("another", True), ("m", False)])
def test_a_folder_in_which_no_model_was_asked_holds_no_answer_cache(serve, tmp_path, model, wrong):
    async def open_and_close():
        async with open_here(lambda clients: None, {"judge": EndpointConfig(model=model, base_url=url)}, tmp_path):
            assert (tmp_path / CACHE).exists()

    url = serve(Script("").app)
    with pytest.raises(UserError, match="does not serve 'another'") if wrong else nullcontext():
        asyncio.run(open_and_close())
    assert list(tmp_path.iterdir()) == []
