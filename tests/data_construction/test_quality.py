import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from data_construction.config import Quality
from data_construction.quality.language import wrong_language
from data_construction.quality.turns import answer_problems, states, turn_problems
from data_steps import run_step
from safer_steer.store import read_jsonl

GOOD = ["What does the picture show?", "Which part of it holds the lamp?", "Why is that part made of metal?"]


def reasons(users, n_turns=None, question="q", **rules) -> list[str]:
    found = turn_problems(users, len(users) if n_turns is None else n_turns, Quality(**rules), question)
    return [problem.reason for problem in found]


@pytest.mark.parametrize(
    ("users", "reason"),
    [
        (GOOD, None),
        (GOOD[:2], "wrong number of turns"),
        ([*GOOD[:2], "  "], "empty turn"),
        ([*GOOD[:2], "Why? And how?"], "several questions in a turn"),
        ([*GOOD[:2], "为什么？怎么样？"], "several questions in a turn"),
        ([*GOOD[:2], "Why?"], "turn too short"),
        ([*GOOD[:2], "so " * 61 + "?"], "turn too long"),
        ([*GOOD[:2], "which  part of it holds the LAMP ?"], "repeated turn"),
        (["How does it work?", "Who made it?", "When was it?"], "no reference to the picture"),
    ],
)
def test_every_rule_names_its_breach(users, reason):
    assert reasons(users, 3) == ([reason] if reason else [])


@pytest.mark.parametrize(
    ("pointer", "turn"),
    [
        ("图片", "请问图片里有什么东西？"),
        ("画像", "この画像には何が写っていますか？"),
        ("写真", "この写真について教えてください。"),
        ("사진", "이 사진에서 무엇이 보이나요?"),
        ("चित्र", "इस चित्र में क्या है?"),
        ("side view", "What does the Side  View tell us?"),
        ("ＰＨＯＴＯ", "What is in the photo?"),
    ],
)
def test_pointers_at_the_picture_are_words_or_phrases_of_any_language(pointer, turn):
    assert reasons([turn, turn + " 再 again"], picture_words=[pointer]) == []
    others = ["What is it then?", "The side has a view, no?", "这是什么东西呢？", "이것은 무엇입니까?"]
    assert reasons(others, picture_words=[pointer]) == ["no reference to the picture"]


def test_languages_are_told_apart_and_formulas_are_not_judged():
    german = "Was ist auf diesem Bild zu sehen? Wozu wird das Werkzeug benutzt?"
    assert wrong_language(german, ("en",)) == "de"
    assert wrong_language(german, ("en", "de")) is None
    assert wrong_language(german, ()) is None
    assert wrong_language("AB = 30, x = 5y.", ("en",)) is None
    assert "wrong language" in reasons([german, "Wie gross ist es?"], picture_words=[], languages=["en"])
    with pytest.raises(ValidationError, match="ISO 639-1"):
        Quality(languages=["English"])


@pytest.mark.parametrize(
    ("answers", "reference", "found"),
    [
        (["It is a lamp.", "The answer is 80."], "80", []),
        (["It is a lamp.", "It is  EIGHTY  metres."], "eighty metres.", []),
        (["It is a lamp.", "I think 81."], "80", ["final answer differs"]),
        (["It is a lamp.", "It is 13 cm."], "3", ["final answer differs"]),
        (["It is a lamp.", "It is 3.5 cm, or 2,3."], "3", ["final answer differs"]),
        (["It is a lamp.", "It is 30."], "3", ["final answer differs"]),
        (["It is a lamp.", "It is a concatenation."], "cat", ["final answer differs"]),
        (["It is a lamp.", "**3**, that is 1.5 + 1.5."], "3", []),
        (["It is a lamp.", "So AB = 3."], "ab=3", []),
        (["It is a lamp.", "长度是３厘米。"], "3", []),
        (["It is a lamp.", "长度是13厘米。"], "3", ["final answer differs"]),
        (["It is a lamp.", "The answer is 6 \\sqrt { 2 }."], "6\\sqrt{2}", []),
        (["It is a lamp.", None], "80", ["missing answer"]),
        (["word " * 301, "80"], "80", ["answer too long"]),
        (["It is a lamp.", "Anything."], None, []),
    ],
)
def test_answers(answers, reference, found):
    assert [problem.reason for problem in answer_problems(answers, Quality(), reference)] == found


def source(path):
    return {"train": {"reader": "jsonl", "path": str(path)}}


def rejects_of(config) -> list[dict]:
    return list(read_jsonl(config.folder / "rejects.jsonl"))


def test_a_broken_rule_is_asked_for_once_more_with_what_is_wrong(double, make_seeds, make_config):
    def fault(name, payload, body):
        if name == "expand" and len(body["messages"]) == 1:
            turns = [{"user": "see this?", "assistant": None}] * (payload["n_turns"] + 1)
            return double.completion(json.dumps({"turns": turns}))
        return None

    double.fault = fault
    config = make_config(source(make_seeds("train", ["a"])), kinds=["benign"])
    run_step("stage1", config)
    first, second = double.called("expand")
    assert [message["role"] for message in second["messages"]] == ["user", "assistant", "user"]
    assert second["messages"][0] == first["messages"][0]
    assert "user turns, got" in second["messages"][2]["content"]
    assert "says the same as turn 1" in second["messages"][2]["content"]
    assert rejects_of(config) == []


NO_THREE = [
    *(
        "x = -3",
        "x = \u22123",
        "x = \u20133",
        "x = \uff0d3",
        "x = - 3",
        "(- 3)",
        "1/3",
        "3/4",
        "3 / 4",
        "3\u20444",
        "5-3",
        "5+3",
    ),
    *("\u221a3", "sqrt(3)", "\\sqrt{3}", "2^3", "2^{3}", "3^2", "3\u00b2", "x\u2083", "10^-3", "\u00b13", "\\pm 3"),
    *("3 million", "3 \u00bd", "3\u00bd", "3 1/2", "3 \u00d7 10^5", "3\u4e07", "3.5", "1.3", "13", "31", "3rd"),
]
THREE = [
    *(
        "x=3",
        "3 cm",
        "3.",
        "(3)",
        "$3$",
        "A: 3",
        "2 + 1 = 3",
        "5 - 2 = 3",
        "2+1=3",
        "**3**",
        "- 3 apples",
        "+3",
        "A - 3",
    ),
    *("\uff13", "It is 3!", "\u7b54\u6848\u662f3\u3002", "4, 3", "3, 4", "Is it 3?", "1. 3"),
]


@pytest.mark.parametrize(
    ("reference", "true", "false"),
    [
        ("3", THREE, NO_THREE),
        ("-3", ["x = -3", "x = \u22123", "is - 3", "\u22123."], ["3", "5 - 3", "5-3", "10^-3", "-3/4", "-13"]),
        ("\u22123", ["x = -3"], ["3"]),
        ("1", ["1", "1 or 2"], ["1 003", "1'000", "1\u2019000", "1\u202f000", "1,000"]),
        ("003", ["003"], ["1 003", "1'003"]),
        ("500", ["in 2020 500 people"], ["1 500"]),
        ("2020", ["in 2020 500 people"], ["22020"]),
        ("32", ["32"], ["3\u00b2", "\u00b332"]),
        ("32 m\u00b2", ["32 m2", "32 m\u00b2"], ["132 m2"]),
        ("3/4", ["It is 3/4."], ["13/4"]),
    ],
)
def test_a_number_is_stated_only_as_itself(reference, true, false):
    assert [text for text in true if not states(text, reference)] == []
    assert [text for text in false if states(text, reference)] == []


@given(st.integers(0, 10**7), st.sampled_from(THREE), st.sampled_from([text for text in NO_THREE if text[0] != "5"]))
def test_every_number_is_stated_only_as_itself(number, true, false):
    assert states(true.replace("3", str(number)), str(number)) or "3" not in true
    assert not states(false.replace("3", str(number)), str(number))


def test_a_rule_broken_twice_ends_the_row_and_stores_the_answer(double, make_seeds, make_config):
    turns = [{"user": "see this?", "assistant": None}]
    double.fault = lambda name, payload, body: (
        double.completion(json.dumps({"turns": turns})) if name == "expand" and "a" in payload["question"] else None
    )
    config = make_config(source(make_seeds("train", ["a", "b"])), kinds=["benign"])
    run_step("stage1", config)
    (reject,) = rejects_of(config)
    assert reject["reason"] == "expand: wrong number of turns"
    assert "user turns, got 1" in reject["detail"]
    assert 'the answer begins "{"turns": [{"user": "see this?"' in reject["detail"]
    assert reject["answer"] == {"turns": turns}
    assert len(double.called("expand")) == 2 + 1


@pytest.mark.parametrize(
    ("name", "text", "reason", "asked"),
    [
        # Free text in place of JSON, twice: the classifier tells a refusal from rubbish.
        ("expand", "I cannot write this.", "expand: refused", 1),
        ("expand", "Some rubbish, sorry.", "expand: unparsed", 1),
        # A refusal inside of the right form is doubted for its missing question mark.
        ("probe", '{"benign": "What is in the picture?", "obfuscated": "I cannot help here."}', "probe: refused", 1),
        # One that ends in a question, or has one before it.
        (
            "probe",
            '{"benign": "What is in it?", "obfuscated": "I cannot rewrite this. Would you like a safer version?"}',
            "probe: refused",
            1,
        ),
        ("probe", '{"benign": "Why this？ I cannot.", "obfuscated": "What is in it?"}', "probe: refused", 1),
        # JSON that is not whole, or without a key, is no refusal, whatever the classifier would say of it.
        ("probe", '{"benign": "36 cannot"}', "probe: unparsed", 0),
        ("expand", '{"turns": [{"user": "I cannot', "expand: unparsed", 0),
    ],
)
def test_refusals_of_the_generator_are_told_by_the_classifier(
    double, make_seeds, make_config, name, text, reason, asked
):
    double.fault = lambda called, payload, body: (
        double.completion(text) if called == name and "bad" in payload["question"] else None
    )
    config = make_config(source(make_seeds("train", ["bad", "good"])), kinds=["benign"])
    run_step("stage1", config)
    (reject,) = rejects_of(config)
    assert reject["reason"] == reason
    assert reject["outcome"] == reason.partition(": ")[2]
    assert ("I cannot" if reason.endswith("refused") else text[:10]) in reject["detail"]
    assert len(double.called("refusal")) == asked
    assert all(isinstance(body["messages"][0]["content"], str) for body in double.called("refusal"))  # no picture


def test_benign_rows_carry_answers_as_configured(double, make_seeds, make_config, tmp_path):
    def fault(name, payload, body):
        if name == "expand":
            answers = payload["with_answers"]
            turns = [
                {"user": f"see {i}?", "assistant": f"a {i}" if answers else None} for i in range(payload["n_turns"])
            ]
            return double.completion(json.dumps({"turns": turns}))
        return None

    double.fault = fault
    path = make_seeds("train", ["a"])
    for mode, answered in (("never", False), ("reference", False), ("always", True)):
        changes = {"expand": {"benign_answers": mode}, "root": str(tmp_path / mode), "kinds": ["benign", "obfuscated"]}
        config = make_config(source(path), **changes)
        run_step("stage1", config)
        rows = {row["kind"]: row for row in read_jsonl(config.folder / "dialogues.jsonl")}
        assert all(bool(turn["assistant"]) is answered for turn in rows["benign"]["turns"])
        assert all(turn["assistant"] is None for turn in rows["obfuscated"]["turns"])
