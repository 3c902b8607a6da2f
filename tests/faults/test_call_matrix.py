"""Every way in which a call ends, in every role, over real HTTP: what is stored, judged, counted and tried again.

Each row of `benchmarks.provider_faults.CASES` fails whatever one role is asked about it; the other roles get good
answers.
"""

import asyncio
import json
import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.provider_faults import CASES, create_app
from builders import dialogue
from data_construction.bootstrap.rollout import RedBlueLoop
from data_construction.calls import Caller, Rejected
from data_construction.config import Quality
from data_construction.probe import probe
from data_construction.prompts import load_prompts
from data_construction.quality.writer import Writer
from data_construction.red_team.simulate import simulate
from data_construction.seeds import SeedRow
from data_construction.step import RowTask
from data_construction.tasks import StageOneTask
from evaluation.benchmarks import BenchmarkDialogue
from evaluation.multi_turn.inference import ANSWERS, Player
from evaluation.multi_turn.judge import Judge, judge_tasks
from evaluation.multi_turn.verdicts import read_verdicts
from evaluation.pictures import ShownPictures
from safer_steer.answer_format import PLAIN, AnswerFormat
from safer_steer.dialogue import Dialogue, Seed
from safer_steer.llm import EndpointConfig, LLMClient
from safer_steer.llm import retry as retry_module
from safer_steer.picture_size import PictureSize
from safer_steer.rows import Reject, process_twice, record_left
from safer_steer.rubric import TurnScores
from safer_steer.stage import Result
from safer_steer.store import JsonlStore, read_jsonl, write_jsonl
from safer_steer.verdict import Unscored
from safer_steer_verl.interactions.safety_tutor import SafetyTutor

BUDGET = 64
SCORES = {"safety": 8, "usefulness": 8, "faithfulness": 10}
GOOD = {
    "probe": {"benign": "What is in this picture?", "obfuscated": "What could this be?"},
    "refusal": {"refusal": False},
    "leak": {"rationale": "r", "score": 1},
    "turn_scores": {"rationale": "r", "scores": SCORES},
    "judge": {"harmlessness_rationale": "r", "helpfulness_rationale": "s", "harmlessness": -2, "helpfulness": 1},
    "tutor": {"diagnosis": "d", "scores": SCORES, "attack_strategy": "deepen", "new_question": "And now?"},
}
# kind -> outcome and tries of a role that talks, and of one that answers in JSON (asked once more).
TALKS = {
    "answer": ("ok", 1),
    "cut": ("truncated", 1),
    "cut empty": ("truncated", 2),
    "filtered": ("filtered", 1),
    "refused": ("refused", 1),
    "refused empty": ("refused", 1),
    "no answer": ("unparsed", 1),
    "thought": ("unparsed", 1),
    "failed": ("transport", 2),
    "bad request": ("bad_request", 1),
}
EMPTY_IS_AN_ANSWER, EMPTY_IS_NONE = ("ok", 1), ("unparsed", 1)
JSON = TALKS | {"cut": ("ok", 1), "no answer": ("unparsed", 2), "thought": ("unparsed", 2), "empty": ("unparsed", 2)}


class Provider:
    """The server's side: fails `role` on texts that hold a case's mark, and counts what it is asked."""

    def __init__(self) -> None:
        self.role = ""
        self.asked: Counter[str] = Counter()
        self.budgets: dict[str, list[int]] = {}

    def choose(self, body: dict) -> tuple:
        """The case of a request, and a good answer to it."""
        structured = body.get("response_format", {}).get("json_schema", {}).get("name")
        message = body["messages"][0] if structured else body["messages"][-1]
        found = re.search(r"case=([^;]*);", json.dumps(message["content"], ensure_ascii=False))
        name = found[1] if found else ""
        text = json.dumps(GOOD[structured]) if structured in GOOD else f"hello {name}"
        if structured == "rewrite":
            text = json.dumps({"user": f"case={name};"})
        if body["model"] != self.role or not name:  # the latter: a plain question after many failures
            return None, text
        self.asked[name] += 1
        self.budgets.setdefault(name, []).append(body["max_tokens"])
        return CASES.get(name), text


@pytest.fixture
def provider(serve: Callable, monkeypatch: pytest.MonkeyPatch) -> Provider:
    """The server, with `url`."""
    monkeypatch.setattr(retry_module, "BASE_DELAY_S", 0.001)
    found = Provider()
    found.url = serve(create_app(found.choose))
    return found


def client(provider: Provider, role: str) -> LLMClient:
    config = EndpointConfig(
        model=role, base_url=provider.url, max_tokens=BUDGET, max_retries=1, rate_limit_wait_s=0, retry_after_cap_s=0.01
    )
    return LLMClient(role, config)


def rows() -> list[str]:
    """Every case, and a row without a fault at both ends."""
    return ["first", *CASES, "last"]


def check(provider: Provider, ends: dict[str, str], expected: dict[str, tuple[str, int]], passes: int = 1) -> None:
    """Compares outcomes and tries with the table, and the budget of the second try after a cut.

    Args:
        provider: the server.
        ends: case -> outcome.
        expected: kind -> outcome and tries.
        passes: how often the stage takes up a row that was lost to transport.
    """
    assert ends.keys() == set(rows())
    for name in rows():
        kind = CASES[name].kind if name in CASES else "answer"
        outcome, tries = expected[kind]
        if name == "status 429":  # waited for, by no try of its own
            tries = 1
        tries *= passes if outcome == "transport" else 1
        assert (ends[name], provider.asked[name]) == (outcome, tries), name
        longer = [BUDGET, 4 * BUDGET] if kind == "cut empty" else [BUDGET] * tries
        assert provider.budgets[name] == longer, name


def caller(provider: Provider, folder: Path) -> Caller:
    Image.new("RGB", (8, 8), "red").save(folder / "a.png")
    roles = ("generator", "target", "red", "blue", "evaluator")
    return Caller({role: client(provider, role) for role in roles}, load_prompts({}), folder, seed=0)


def all_done(folder: Path, tasks: list, work: Callable, kept: str = "answers") -> Result:
    """Does tasks as a stage does, one after another."""
    with JsonlStore(folder / f"{kept}.jsonl") as rows, JsonlStore(folder / f"{kept}_rejects.jsonl") as rejects:
        options = {"kept": rows, "rejects": rejects, "label": "t", "concurrency": 1, "max_transport_rate": 1.0}
        asyncio.run(process_twice(lambda: tasks, work, **options))
    return Result(JsonlStore(rows.path), JsonlStore(rejects.path), lambda: tasks, {}, {})


def by_name(work: Callable) -> dict[str, str]:
    """Runs `work(name)` for every row, one after another; gives the outcomes."""

    async def all_rows() -> dict[str, str]:
        return {name: await work(name) for name in rows()}

    return asyncio.run(all_rows())


def task(name: str) -> StageOneTask:
    seed = Seed(id=name, source="t", image="a.png", question=f"case={name}; what is it?")
    row = SeedRow(id=f"t/{name}", origin="t", split="train", benchmark=None, kinds=["benign"], seed=seed)
    return StageOneTask(f"stage1/{name}", row, "benign", 2)


def test_the_model_under_test(provider, tmp_path):
    """What it said is stored; a turn without an answer ends its dialogue, and nothing is built upon it."""
    provider.role = "evaluated_m"
    texts = {name: [f"first {name}", f"case={name};", f"third {name}"] for name in rows()}
    tasks = [BenchmarkDialogue("bench", dialogue(name, *texts[name]), tmp_path) for name in rows()]
    pictures = ShownPictures(PictureSize(), tmp_path / "pictures")
    player = Player(client(provider, "evaluated_m"), seed=0, answers=AnswerFormat(), folder=tmp_path, pictures=pictures)
    result = all_done(tmp_path, tasks, player.play)
    record_left(result.kept, result.rejects, Dialogue)
    ends = {}
    for row in read_jsonl(tmp_path / ANSWERS, Dialogue):
        first, second, third = row.turns
        assert first.assistant == "hello "
        whole = row.meta["end"] == "complete"
        ends[row.id] = second.meta["outcome"] if whole else row.meta["end"]
        assert (second.assistant is not None, third.assistant is not None) == (whole, whole)
        if row.id in CASES and CASES[row.id].kind.startswith("refused"):  # the model's own words, or none
            assert whole == (CASES[row.id].kind == "refused")
            assert second.assistant in (f"hello {row.id}", "I will not.", None)
        if ends[row.id] in ("ok", "truncated") and whole:
            expected = {"content empty": "", "content of no letters": " \n"}
            assert second.assistant == expected.get(row.id, f"hello {row.id}")
    table = TALKS | {"empty": EMPTY_IS_AN_ANSWER}
    check(provider, ends, table, passes=2)


def test_the_target_of_the_red_team(provider, tmp_path):
    provider.role = "target"
    models = caller(provider, tmp_path)

    async def work(name: str) -> str:
        try:
            play = await simulate([f"case={name};"], task(name), models, success_score=4)
        except Rejected as stop:
            return stop.reject.outcome
        said = play.turns[0].assistant
        assert play.turns[0].leak == 1
        return "ok" if said.strip() == f"hello {name}" or not said.strip() else f"? {said}"

    ends = by_name(work)
    # What a cut or refusing target said is its answer, and is judged.
    table = TALKS | {"cut": ("ok", 1), "empty": EMPTY_IS_AN_ANSWER}
    refused = {name: ends[name] for name in CASES if CASES[name].kind == "refused"}
    assert set(refused.values()) == {"ok", "? I will not."}
    ends |= dict.fromkeys(refused, "refused")
    check(provider, ends, table)


def bootstrapped(provider: Provider, folder: Path, role: str) -> dict[str, str]:
    provider.role = role
    loop = RedBlueLoop(caller(provider, folder), PLAIN, Quality(), "Be safe.")

    def template(name: str) -> Dialogue:
        return dialogue(name, {"user": f"case={name};", "images": [0]}, images=["a.png"], meta={"seed": "s"})

    async def work(name: str) -> str:
        result = await loop(RowTask("stage2", name, lambda: template(name)))
        if isinstance(result, Reject):
            assert result.row["turns"] == []
            return result.outcome
        assert result.turns[0].scores == TurnScores(**SCORES)
        return "ok"

    return by_name(work)


def test_the_blue_agent(provider, tmp_path):
    check(provider, bootstrapped(provider, tmp_path, "blue"), TALKS | {"empty": EMPTY_IS_NONE})


def test_the_evaluator(provider, tmp_path):
    check(provider, bootstrapped(provider, tmp_path, "evaluator"), JSON)


def test_the_generator(provider, tmp_path):
    provider.role = "generator"
    writer = Writer(caller(provider, tmp_path), Quality(picture_words=[]))

    async def work(name: str) -> str:
        try:
            found = await probe(task(name), writer)
        except Rejected as stop:
            return stop.reject.outcome
        assert found.model_dump() == GOOD["probe"]
        return "ok"

    check(provider, by_name(work), JSON)


def test_the_judge(provider, tmp_path):
    """No number but the server's enters a verdict; every other turn is unscored with its reason."""
    provider.role = "judge"
    meta = {"benchmark": "b", "end": "complete"}
    turns = {name: {"user": f"case={name};", "assistant": "a"} for name in rows()}
    write_jsonl(tmp_path / ANSWERS, [dialogue(name, turn, meta=meta | {"task": name}) for name, turn in turns.items()])
    model = client(provider, "judge")
    judge = Judge(model.config, tmp_path, 1.0)
    tasks = judge_tasks(tmp_path / ANSWERS)
    judge.answered = len(tasks)
    counts = judge.finish(all_done(tmp_path, tasks, partial(judge.work, model), "verdicts"))
    ends = {}
    for row in read_verdicts(tmp_path / "verdicts.jsonl"):
        ends[row.dialogue] = "ok" if row.scores else row.unscored.partition(":")[0]
        assert row.scores is None or row.scores.model_dump() == GOOD["judge"]
        assert row.answered
    check(provider, ends, JSON, passes=2)
    lost = Counter(end for end in ends.values() if end != "ok")
    assert {name: counts[f"(judge {name})"] for name in lost} == lost
    assert counts["turns"] == len(ends) == counts["scored"] + sum(lost.values())


def test_the_tutor(provider):
    provider.role = "tutor"
    tutor = SafetyTutor(client(provider, "tutor"), feedback_dynamics=True)

    async def work(name: str) -> str:
        turn = await tutor.step([], [], f"case={name};", "no .", "go on ?")
        if isinstance(turn, Unscored):
            return turn.reason.partition(":")[0]
        assert turn.scores == TurnScores(**SCORES)
        return "ok"

    check(provider, by_name(work), JSON)
