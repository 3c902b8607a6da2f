"""Inference against a real HTTP server: what enters the history, how dialogues end, what a resumed run repeats."""

import asyncio
import json

import pytest

from evaluation.benchmarks import most_pictures, read_benchmarks
from evaluation.multi_turn.adaptive import adapted_turn, count_user_turns
from evaluation.multi_turn.inference import ANSWERS, REJECTS, count_ends, inference, turn_seed
from evaluation.multi_turn.judge import VERDICTS, judging
from evaluation.multi_turn.verdicts import read_verdicts
from safer_steer import stage
from safer_steer.answer_tags import form_note
from safer_steer.data_block import parse_data_block
from safer_steer.dialogue import Dialogue, Turn
from safer_steer.engine import CACHE
from safer_steer.errors import RunAborted, UserError
from safer_steer.row_files import BadRow
from safer_steer.store import read_jsonl
from safer_steer.verdict import Outcome, Unscored

RATIONALES = ("harmlessness_rationale", "helpfulness_rationale")
FILTERED = {"content": None, "finish_reason": "content_filter"}


def texts(body):
    """Role and text of every message of a request; pictures as "[picture]"."""
    found = []
    for message in body["messages"]:
        parts = message["content"]
        parts = [{"type": "text", "text": parts}] if isinstance(parts, str) else parts
        found.append((message["role"], "".join(part.get("text", "[picture]") for part in parts)))
    return found


def last(body):
    return texts(body)[-1][1].replace("[picture]", "")


TUTOR_PROMPT = "verl/safer_steer_verl/interactions/safety_tutor.jinja"  # the template of training


def run(server, bench, folder, adaptive=False, rate=0.9, sampling=None, **values):
    """Plays what is not there yet, whatever an earlier run made of it; returns the record's counts and the rows."""
    (folder / "infer.json").unlink(missing_ok=True)
    tutor = {"mode": "adaptive", "tutor": server.endpoint().model_dump() | {"prompt": TUTOR_PROMPT}} if adaptive else {}
    config = server.config(
        folder,
        server.endpoint(**values),
        benchmarks=[str(bench)],
        sampling={"temperature": 1.0, "max_tokens": 32, "seed": 7} | (sampling or {}),
        max_transport_rate=rate,
        **tutor,
    )
    stage.run([inference(config, folder.name)])
    counts = json.loads((folder / "infer.json").read_text())["counts"]
    return counts, {row.id: row for row in read_jsonl(folder / ANSWERS, Dialogue)}


def echo(body):
    return f"answer to {last(body)}"


def test_turns_in_order_with_pictures_and_own_seeds(serve, bench, tmp_path):
    with serve(echo) as server:
        _, rows = run(server, bench, tmp_path / "m")
    assert len(rows) == 6
    assert len(server.requests) == 18
    assert [turn.assistant for turn in rows["d3"].turns] == [f"answer to d3 turn {t}" for t in (1, 2, 3)]
    assert {row.meta["end"] for row in rows.values()} == {"complete"}
    third = next(body for body in server.requests if last(body) == "d0 turn 3")
    assert texts(third) == [
        ("user", "[picture]d0 turn 1"),
        ("assistant", "answer to d0 turn 1"),
        ("user", "d0 turn 2"),
        ("assistant", "answer to d0 turn 2"),
        ("user", "[picture]d0 turn 3"),
    ]
    assert "from the data set" not in json.dumps(server.requests)
    seeds = [body["seed"] for body in server.requests]
    assert len(set(seeds)) == 18
    assert turn_seed(7, "d0", 3) == third["seed"]
    assert all((tmp_path / "m" / image).resolve().is_file() for image in rows["d0"].images)
    assert most_pictures(task.dialogue for task in read_benchmarks([str(bench)])) == 2


def test_a_full_context_ends_its_dialogue_only(serve, bench, tmp_path):
    answer, end = (400, "This model's maximum context length is 16 tokens"), "context_full"
    with serve(lambda body: answer if last(body) == "d1 turn 2" else echo(body)) as server:
        counts, rows = run(server, bench, tmp_path / "m")
    failed = rows.pop("d1")
    assert failed.meta["end"] == end
    assert (counts["complete"], counts[end]) == (5, 1)
    assert [turn.assistant for turn in failed.turns] == ["answer to d1 turn 1", None, None]
    assert all(row.meta["end"] == "complete" for row in rows.values())
    assert not any(last(body) == "d1 turn 3" for body in server.requests)
    assert count_ends(tmp_path / "m" / ANSWERS) == {"complete": 5, end: 1}


@pytest.mark.parametrize("in_history", [False, True])
def test_thoughts_are_kept_in_the_row_and_neither_judged_nor_by_default_sent_back(serve, bench, tmp_path, in_history):
    def think(body):
        if last(body) == "d1 turn 1":
            return {"content": "No.", "reasoning_content": "beside"}
        if last(body) == "d2 turn 2":
            return {"content": "<think>never ends", "finish_reason": "length"}
        return f"<think>I could leak {last(body)}</think>\n\n{echo(body)}"

    with serve(think) as server:
        _, rows = run(server, bench, tmp_path / "m", sampling={"reasoning_in_history": in_history})
    first, beside = rows["d0"].turns[0], rows["d1"].turns[0]
    assert (first.assistant, first.meta["reasoning"]) == ("answer to d0 turn 1", "I could leak d0 turn 1")
    assert (beside.assistant, beside.meta["reasoning"]) == ("No.", "beside")
    third = next(body for body in server.requests if last(body) == "d0 turn 3")
    said = [text for role, text in texts(third) if role == "assistant"]
    thought = "<think>I could leak d0 turn 1</think>\n\n" if in_history else ""
    assert said[0] == f"{thought}answer to d0 turn 1"
    assert (rows["d2"].meta["end"], rows["d2"].turns[1].assistant) == ("truncated", None)
    assert rows["d2"].meta["end_detail"].endswith('before the answer began; it begins "<think>never ends"')


def test_what_a_model_said_without_an_answer_is_kept_whole_and_never_judged(serve, bench, tmp_path):
    long = "words that are no answer " * 40
    call = [{"id": "1", "type": "function", "function": {"name": "look", "arguments": f'{{"at": "{long}"}}'}}]
    ends = {
        "d0": ({"content": long, "finish_reason": "content_filter"}, "filtered", long),
        "d1": ({"content": None, "reasoning_content": long}, "unparsed", long),
        "d2": ({"content": f"<think>{long}", "finish_reason": "length"}, "truncated", f"<think>{long}"),
        "d3": (f"<think>{long}</think>", "unparsed", f"<think>{long}</think>"),
        "d4": ({"content": None, "tool_calls": call, "finish_reason": "tool_calls"}, "unparsed", json.dumps(call)),
        "d5": (FILTERED, "filtered", None),
    }

    def behave(body):
        if body.get("response_format"):
            return json.dumps({"harmlessness": 3, "helpfulness": 3} | dict.fromkeys(RATIONALES, "r"))
        name, _, turn = last(body).partition(" ")
        return ends[name][0] if turn == "turn 2" else echo(body)

    with serve(behave) as server:
        _, rows = run(server, bench, tmp_path / "m")
        stage.run([judging(server.config(tmp_path / "m", benchmarks=[str(bench)]), "m")])
    for name, (_, end, said) in ends.items():
        assert (rows[name].meta["end"], rows[name].meta.get("model_said")) == (end, said)
        assert [turn.assistant is None for turn in rows[name].turns] == [False, True, True]
    assert "are no answer" not in json.dumps(server.requests)
    verdicts = {row.id: row.unscored for row in read_verdicts(tmp_path / "m" / VERDICTS)}
    assert verdicts == {f"{name}:1": None for name in ends} | {
        f"{name}:2": f"no answer: {end}" for name, (_, end, _) in ends.items()
    }


def test_the_papers_format_is_taken_apart(serve, bench, tmp_path):
    with serve(lambda body: f"<thinking>hm</thinking>\n<answer>{echo(body)}</answer>") as server:
        _, rows = run(server, bench, tmp_path / "m")
    turn = rows["d3"].turns[0]
    assert (turn.assistant, turn.meta["reasoning"]) == ("answer to d3 turn 1", "hm")


def test_a_model_has_its_own_format_sampling_and_pictures(serve, bench, tmp_path):
    """They reach every request and the record; the history is what the model wrote, as in training."""
    own = {"answer_format": {"system": "Think.", "tags": ["thinking", "answer"]}, "max_pixels": 3136}
    own |= {"sampling": {"temperature": 0.5, "max_tokens": 9}}
    with serve(lambda body: f"<thinking>hm</thinking><answer>{echo(body)}</answer>") as server:
        model = {"endpoint": server.endpoint()} | own
        config = server.config(tmp_path / "m", benchmarks=[str(bench)], models={"m": model})
        stage.run([inference(config, "m")])
    row = next(row for row in read_jsonl(tmp_path / "m" / ANSWERS, Dialogue) if row.id == "d3")
    assert row.turns[0].assistant == "answer to d3 turn 1"
    body = next(body for body in server.requests if last(body) == "d3 turn 2")
    assert texts(body)[0] == ("system", "Think.")
    assert texts(body)[2] == ("assistant", "<thinking>hm</thinking><answer>answer to d3 turn 1</answer>")
    assert (body["temperature"], body["max_tokens"]) == (0.5, 9)
    facts = json.loads((tmp_path / "m" / "infer.json").read_text())["facts"]["config"]
    assert facts["answer_format"]["tags"] == ["thinking", "answer"]
    assert (facts["sampling"]["temperature"], facts["max_pixels"]) == (0.5, 3136)


def test_what_an_endpoint_sets_itself_is_sent_and_recorded_as_the_sampling(serve, bench, tmp_path):
    own = {"temperature": 0.3, "max_tokens": 9, "extra_body": {"top_k": 5, "min_p": 0.1}}
    with serve(echo) as server:
        run(server, bench, tmp_path / "m", sampling={"top_k": 20, "top_p": 0.8}, **own)
    sent = {"temperature": 0.3, "max_tokens": 9, "top_k": 5, "top_p": 0.8}
    assert all(sent.items() <= body.items() and body["min_p"] == 0.1 for body in server.requests)
    facts = json.loads((tmp_path / "m" / "infer.json").read_text())["facts"]["config"]
    assert sent.items() <= facts["sampling"].items()


def test_a_missing_tag_is_noted_and_the_text_is_judged(serve, bench, tmp_path):
    with serve(lambda body: f"<thinking>hm</thinking>{echo(body)}") as server:
        model = {"endpoint": server.endpoint(), "answer_format": {"tags": ["thinking", "answer"]}}
        stage.run([inference(server.config(tmp_path / "m", benchmarks=[str(bench)], models={"m": model}), "m")])
    row = next(row for row in read_jsonl(tmp_path / "m" / ANSWERS, Dialogue) if row.id == "d3")
    assert row.turns[0].assistant == "answer to d3 turn 1"
    assert row.turns[0].meta["format_problem"] == "not in <answer>...</answer>"


def test_too_many_lost_to_transport_are_not_recorded_however_few_dialogues_there_are(serve, bench, tmp_path):
    with (
        serve(lambda body: (503, "down") if last(body) in ("d1 turn 2", "d4 turn 1") else echo(body)) as server,
        pytest.raises(RunAborted, match=r"2 of 6 tasks failed to reach a model, each twice \(limit 20%"),
    ):
        run(server, bench, tmp_path / "m", rate=0.2)
    assert count_ends(tmp_path / "m" / ANSWERS) == {"complete": 4}
    with serve(echo) as server:
        _, rows = run(server, bench, tmp_path / "m", rate=0.2)
    assert {row.meta["end"] for row in rows.values()} == {"complete"}
    assert len(server.requests) == 2 + 3  # d1 goes on at turn 2


def test_resume_plays_only_what_is_missing(serve, bench, tmp_path):
    with serve(echo) as server:
        run(server, bench, tmp_path / "m")
        path = tmp_path / "m" / ANSWERS
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(lines[:4]) + lines[4][:20])
        missing = {json.loads(line)["id"] for line in lines[4:]}
        server.requests.clear()
        _, rows = run(server, bench, tmp_path / "m")
    assert {last(body).split()[0] for body in server.requests} == missing
    assert len(server.requests) == 6
    assert len(rows) == 6
    assert path.read_bytes().splitlines(keepends=True) == lines


def test_resume_in_mid_dialogue_asks_no_turn_twice(serve, bench, tmp_path):
    with serve(echo) as server:
        run(server, bench, tmp_path / "whole")

    def down_at_the_end(body):
        return (503, "down") if last(body).endswith("turn 3") else echo(body)

    with serve(down_at_the_end) as server, pytest.raises(RunAborted):
        run(server, bench, tmp_path / "m", rate=0.0)
    with serve(echo) as server:
        run(server, bench, tmp_path / "m")
        asked = [last(body) for body in server.requests]
    assert sorted(asked) == [f"d{number} turn 3" for number in range(6)]
    assert (tmp_path / "m" / ANSWERS).read_bytes() == (tmp_path / "whole" / ANSWERS).read_bytes()
    assert not (tmp_path / "m" / CACHE).exists()


def tutor_reply(body, question):
    """What the tutor answers to a request: an adapted question built from the data block."""
    content = body["messages"][0]["content"]
    data = parse_data_block(content if isinstance(content, str) else content[-1]["text"])
    scores = {"safety": 8, "usefulness": 8, "faithfulness": 10}
    reply = {"diagnosis": "d", "scores": scores, "attack_strategy": "deepen", "new_question": question(data)}
    return json.dumps(reply)


def test_adaptive_mode_lets_the_tutor_write_the_user_turns(serve, bench, tmp_path):
    def behave(body):
        if not body.get("response_format"):
            return echo(body)
        return tutor_reply(body, lambda data: f"{data['static_next']} after {data['assistant']}"[:60])

    with serve(behave) as server:
        run(server, bench, tmp_path / "m", adaptive=True)
    rows = {row.id: row for row in read_jsonl(tmp_path / "m" / ANSWERS, Dialogue)}
    turns = rows["d3"].turns
    assert [turn.user for turn in turns][:2] == ["d3 turn 1", "d3 turn 2 after answer to d3 turn 1"]
    assert [turn.template for turn in turns] == [None, "d3 turn 2", "d3 turn 3"]
    assert turns[1].assistant == "answer to d3 turn 2 after answer to d3 turn 1"
    assert (turns[1].meta["adapted"], turns[1].meta["attack_strategy"]) == (True, "deepen")
    assert len(server.requests) == 18 + 12
    assert count_user_turns(tmp_path / "m" / ANSWERS) == {"written": 12, "kept": 0, "failed": 0}
    record = json.loads((tmp_path / "m" / "infer.json").read_text())
    assert (record["facts"]["prompts"].keys(), record["usage"]["tutor"]["calls"]) == ({"tutor"}, 12)
    last_of_d0 = next(b for b in server.requests if not b.get("response_format") and "d0 turn 3" in last(b))
    assert texts(last_of_d0)[-1][1].startswith("[picture]d0 turn 3 after")


def test_the_tutor_is_told_of_a_broken_form_as_in_training():
    told = []

    class Tutor:
        async def step(self, *arguments):
            told.append(arguments[-1])
            return Unscored(outcome=Outcome.TRANSPORT, detail="away")

    for problem in ("", "no <answer>"):
        done = [Turn(user="u", assistant="a", meta={"format_problem": problem} if problem else {})]
        asyncio.run(adapted_turn(Tutor(), done, [[]], Turn(user="next")))
    assert told == ["", form_note("no <answer>")]
    assert told[1]


def test_a_tutor_without_a_usable_turn_leaves_the_benchmarks_own(serve, bench, tmp_path):
    with serve(lambda body: "no JSON" if body.get("response_format") else echo(body)) as server:
        _, rows = run(server, bench, tmp_path / "m", adaptive=True)
    assert [turn.user for turn in rows["d3"].turns] == [f"d3 turn {t}" for t in (1, 2, 3)]
    assert rows["d3"].turns[1].meta["adapted"] is False
    assert rows["d3"].turns[1].meta["not_adapted"].startswith("tutor ")
    assert count_user_turns(tmp_path / "m" / ANSWERS) == {"written": 0, "kept": 0, "failed": 12}


def test_a_tutor_that_keeps_the_turn_has_not_failed_and_its_run_leaves_nothing_in_another(serve, bench, tmp_path):
    """A run's answers as a benchmark: all that the first run said of itself is gone."""

    def behave(body):
        if body.get("response_format"):
            return tutor_reply(body, lambda data: data["static_next"])
        return FILTERED if last(body) == "d1 turn 2" else f"<think>hm</think>{echo(body)}"

    with serve(behave) as server:
        counts, rows = run(server, bench, tmp_path / "m", adaptive=True)
        server.behave = echo
        _, again = run(server, tmp_path / "m" / ANSWERS, tmp_path / "again")
    assert count_user_turns(tmp_path / "m" / ANSWERS) == {"written": 0, "kept": 10, "failed": 0}
    assert counts["(user turns, kept)"] == 10, "that which was filtered has no answer"
    assert rows["d3"].turns[1].meta == {
        "adapted": False,
        "attack_strategy": "deepen",
        "not_adapted": "the tutor kept it",
        "outcome": "ok",
        "reasoning": "hm",
    }
    assert rows["d1"].meta["end"] == "filtered"
    assert count_user_turns(tmp_path / "again" / ANSWERS) == {}
    assert {key for row in again.values() for turn in row.turns for key in turn.meta} == {"outcome"}
    assert {key for row in again.values() for key in row.meta} == {"task", "benchmark", "end", "sample_of"}


def test_a_tutor_that_is_down_ends_dialogues_as_transport_and_is_asked_again(serve, bench, tmp_path):
    with serve(lambda body: (503, "down") if body.get("response_format") else echo(body)) as server:
        _, rows = run(server, bench, tmp_path / "m", adaptive=True, rate=1.0)
        asked = sum(1 for body in server.requests if body.get("response_format"))
    assert {row.meta["end"] for row in rows.values()} == {"transport"}
    assert all(row.turns[0].assistant and row.turns[1].assistant is None for row in rows.values())
    assert asked == 12  # each dialogue's tutor twice
    assert len(server.requests) == 18  # and no answer of the model twice


def test_a_missing_picture_rejects_the_dialogue(serve, bench, tmp_path):
    for picture in (bench.parent / "images").glob("*.png"):
        if picture.name in json.loads(bench.read_text().splitlines()[0])["images"][1]:
            picture.unlink()
    with serve(echo) as server:
        counts, rows = run(server, bench, tmp_path / "m")
    assert "d0" not in rows
    assert counts["(unusable picture)"] == 1
    assert [row["id"] for row in read_jsonl(tmp_path / "m" / REJECTS)] == ["d0"]


def test_no_answer_at_all_is_an_error(serve, bench, tmp_path):
    with serve(lambda body: FILTERED) as server, pytest.raises(UserError, match="not one of 6"):
        run(server, bench, tmp_path / "m")


def test_benchmark_errors(bench, tmp_path):
    with pytest.raises(UserError, match="no benchmark file matches"):
        read_benchmarks([str(tmp_path / "nothing*.jsonl")])
    (tmp_path / "vlguard.jsonl").write_text(bench.read_text())
    with pytest.raises(UserError, match=r"6 bad rows.*has 3 turns, but vlguard is a single-turn benchmark"):
        read_benchmarks([str(tmp_path / "vlguard.jsonl")])
    (bench.parent / "vls.jsonl").write_text(bench.read_text())
    bad: list[BadRow] = []
    assert len(read_benchmarks([str(bench.parent / "*.jsonl")], bad=bad)) == len(bad) == 6
    assert {row.reason for row in bad} == {"repeated id"}
    assert bad[0].id == "vls.jsonl:1"
    assert "ids must be unique" in bad[0].detail
