"""From model text to scores: the verdict that was written, or an error; never another number.

The three properties get 500 examples each; `VERDICT_EXAMPLES=34000` gives them about 100,000 together.
"""

import json
import os
import re
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_construction.bootstrap.rollout import ScoredTurn
from data_construction.history import RequestRisk
from data_construction.quality.writer import RefusalVerdict
from data_construction.red_team.plan import Script
from data_construction.red_team.simulate import Leak
from safer_steer.llm import parsing
from safer_steer.llm.parsing import ParseError, parse_structured
from safer_steer.rubric import JudgeScores, TurnScores
from safer_steer_verl.interactions.safety_tutor import TutorReply

GOOD = '{"safety": 8, "usefulness": 7, "faithfulness": 10}'
SCORES = TurnScores(safety=8, usefulness=7, faithfulness=10)
ONES = '{"safety": 1, "usefulness": 1, "faithfulness": 1}'
GOLDEN = Path(__file__).parents[1] / "golden" / "prompts"
NINES = json.dumps({"harmlessness": 3, "helpfulness": 3})


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        f"```json\n{GOOD}\n```",
        f"Here you are:\n{GOOD}\nAnything else?",
        GOOD.replace('"', "'"),
        GOOD.replace("10}", "10,}"),
        GOOD.replace("8", "8.0"),
        GOOD.replace("8", "8e0"),
        GOOD.replace("8", "0.8e1"),
        f"<think>{ONES}</think>{GOOD}",
        f"Opened in the prompt: {ONES}\n</think>\n\n{GOOD}",
        f"Opened in the prompt</think>{GOOD}",
        f"[THINK]{ONES}[/THINK]{GOOD}",
        f"{GOOD} <think>was that right?</think>",
        f"\ufeff<think>{ONES}</think>{GOOD}",
        f"<think>hm</think> <think>or 3</think> {GOOD}",
        f"Of 10 criteria, safety first: {GOOD}",
        f"<seed:Think>{ONES}</seed:Think>{GOOD}",
        f"<|channel|>analysis<|message|>{ONES}<|end|><|start|>assistant<|channel|>final<|message|>{GOOD}<|return|>",
        f"analysis{ONES}assistantfinal{GOOD}",
        f"<verdict>{GOOD}</verdict>",
        f"<scratchpad>hm</scratchpad>{GOOD}",
        f"The picture <image> is shown. {GOOD}",
        f"{GOOD}\n{GOOD}",
    ],
)
def test_the_object_is_found(text):
    assert parse_structured(text, TurnScores) == SCORES


NO_NUMBERS = [
    *("99", '"8/10"', '"8"', "8.5", "true", "null", "8/10", "8 of 10", "~8", "8 10", "+8", "08", "8.", ".8e1", "NaN"),
    *("Infinity", "-Infinity", "1e400", "8.00000000000000000000000001", "8_0", "0x8", "8,0", "\uff18", "\u0668"),
    *("1e99999999999999999999", "1" * 5000, "8\u200b", "\u22128", "\u20138", "-8", "[8]", '{"v": 8}'),
]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I cannot judge this.",
        *(GOOD.replace("8", other) for other in NO_NUMBERS),
        '{"safety": 8}',
        f"<think>{GOOD}",
        f"<THINK>{GOOD}",
        f"<|channel|>analysis<|message|>{GOOD}<|end|>",
        f"analysis{GOOD}",
        f"<|START_THINKING|>{GOOD}<|END_THINKING|>",
        f"<scratchpad>{GOOD}</scratchpad>",
        f"<scratchpad>Perhaps {GOOD}",
        f"{GOOD}</think>",
        f"{GOOD}\n</think>\n",
        f"Verdict: {{'note': 'it's }} </think>{GOOD}",
        f'<think> {{"note": "</think>", "safety": 1}} {GOOD}',
        f"<think> {{'note': 'it says </think>{GOOD}, ",
        f"{GOOD} or {GOOD.replace('8', '9')}",
        f'A draft {{"safety": 99}} and then {GOOD}',
        f"\ufeff<think>Perhaps {GOOD}",
        f"\u200b<think>{GOOD}",
        f"Sure.\n<think>Perhaps {GOOD}",
        f"<think>hm</think> So <think>perhaps {GOOD}",
        f"Sure: [THINK]{GOOD}",
        f"{GOOD}\nCorrection: safety is three.",
        f"{GOOD}\nI mean 3.",
        f"{GOOD} Safety should be low.",
        f"[{GOOD}, 5]",
        f"[5, {GOOD}]",
        f"[{GOOD}]",
        f"{GOOD} <think>was that right? {ONES}",
        GOOD.replace("{", '{"safety": 3, '),
        GOOD.replace("}", ', "s\\u0061fety": 3}'),
        GOOD.replace("{", "{'safety': 3, "),
        GOOD.replace("{", '{"note": "x", '),
        json.dumps(GOOD),
        f"{{{GOOD}}}",
        f"{GOOD}}}",
        f'{{"scores": {GOOD}}}',
        f'I quote: "{json.dumps(GOOD)}"',
        pytest.param("[" * 3000, id="deep list"),
        pytest.param('{"a":' * 3000, id="deep object"),
        pytest.param('{"a":' * 3000 + "1" + "}" * 3000, id="deep closed object"),
    ],
)
def test_anything_else_is_an_error(text):
    with pytest.raises(ParseError):
        parse_structured(text, TurnScores)


def test_words_after_an_object_without_numbers_do_no_harm():
    text = '{"refusal": true} It declines in 2 words.'
    assert parse_structured(text, RefusalVerdict).refusal


def test_an_object_too_deep_to_be_written_again_is_an_error(monkeypatch):
    def too_deep(_):
        raise RecursionError

    monkeypatch.setattr(parsing.json, "dumps", too_deep)
    with pytest.raises(ParseError, match="nested too deep"):
        parse_structured(GOOD, TurnScores)


def test_no_prompts_example_is_a_verdict():
    for name in (
        "judge",
        "judge_printed",
        "safety_tutor",
        "safety_tutor_static",
        "turn_scores",
        "leak",
        "request_risk",
    ):
        prompt = (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")
        example = prompt.partition("one JSON object")[2].partition("{")[2].partition("}\n")[0]
        assert "<integer from" in example
        for schema in (JudgeScores, TutorReply, ScoredTurn, Leak, RequestRisk):
            for text in (prompt, f"{{{example}}}", f"{{{example}}}}}"):
                with pytest.raises(ParseError):
                    parse_structured(text, schema)


@pytest.mark.parametrize(
    "minus", ["\u2212", "\u2013", "\u2014", "\ufe63", "\uff0d", "\u2010", "\u00ad", "- ", "--", "~", "+"]
)
def test_no_other_minus_turns_unsafe_into_safe(minus):
    with pytest.raises(ParseError):
        parse_structured(f'{{"harmlessness": {minus}3, "helpfulness": 0}}', JudgeScores)
    assert parse_structured('{"harmlessness": -3.0, "helpfulness": -0}', JudgeScores).harmlessness == -3


@pytest.mark.parametrize(
    "text",
    [
        f"{{'harmlessness_rationale': 'it says ```json\n{NINES}\n```', 'harmlessness': -3, 'helpfulness': 0}}",
        '{"harmlessness_rationale": "it says </think>{} ```", "harmlessness": -3, "helpfulness": 0}',
        f"<think>It says {NINES}.</think>```json\n{{'harmlessness': -3, 'helpfulness': 0,}}```",
        '{"harmlessness_rationale": "it\nbreaks", \'harmlessness\': -3, "helpfulness": 0}',
    ],
)
def test_what_an_answer_quotes_is_never_the_answer(text):
    found = parse_structured(text, JudgeScores)
    assert (found.harmlessness, found.helpfulness) == (-3, 0)


@given(st.integers(min_value=1, max_value=len(GOOD) - 1))
def test_a_torn_answer_never_becomes_a_score(cut):
    with pytest.raises(ParseError):
        parse_structured(GOOD[:cut], TurnScores)


def test_a_torn_answer_that_quotes_a_whole_one_is_none():
    for quote in (NINES, NINES.replace('"', "'"), f"</think>{NINES}", f"```json\n{NINES}\n```"):
        for start in ("", "Verdict: ", "<think>hm</think>", "```json\n"):
            for text in (json.dumps(quote)[:-1], f"'{quote}", f'"{quote}'):
                with pytest.raises(ParseError):
                    parse_structured(f'{start}{{"harmlessness_rationale": {text}', JudgeScores)


@given(st.text(max_size=60))
def test_no_text_crashes_the_parser(text):
    for candidate in (text, f"{{{text}}}", f"```{text}```"):
        try:
            parse_structured(candidate, TurnScores)
        except ParseError:
            pass


# One verdict of every reply that carries numbers, with words that look like verdicts inside.
WORDS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        [NINES, ONES, f"```json\n{NINES}\n```", "<think>", "</think>", f"</think>{NINES}", "it's", '"', "}", "{", "\\"]
    ),
)
TURN = st.builds(TurnScores, safety=st.integers(1, 10), usefulness=st.integers(1, 10), faithfulness=st.integers(1, 10))
RISK = st.integers(1, 5)
PLANNED = st.fixed_dictionaries({"goal": WORDS, "tactic": WORDS, "risk": RISK, "user": WORDS})
VERDICTS = [
    TURN,
    st.builds(
        JudgeScores,
        harmlessness=st.integers(-3, 3),
        helpfulness=st.integers(0, 3),
        harmlessness_rationale=WORDS,
        helpfulness_rationale=WORDS,
    ),
    st.builds(Leak, rationale=WORDS, score=RISK),
    st.builds(RequestRisk, rationale=WORDS, risk=RISK),
    st.builds(ScoredTurn, rationale=WORDS, scores=TURN),
    st.builds(
        TutorReply, diagnosis=WORDS, scores=TURN, attack_strategy=st.just("none"), new_question=st.none() | WORDS
    ),
    st.builds(Script, turns=st.lists(PLANNED, min_size=1, max_size=3)),
]
NUMBERS = ["\u22123", "\u20133", "-3", "3", "+3", "03", "3.0", "3.5", "3e0", '"3"', "3/10", "NaN", "Infinity", "null"]
PIECES = [*NUMBERS, *"{}[],:\"'\\\n 0189-.e", "```", "</think>", "<think>", '"safety": 9, ', "'score': 1, ", "\\u0073"]
PIECES += [NINES]
ALONE = ["{0}", "```json\n{0}\n```", "{1} {0} {2}", "<think>{1}</think>{0}", "{1}\n</think>\n{0}", "{0}\n{0}"]
ALONE += ["\ufeff{0}"]
BESIDE = ["{0}{3}", "{3} {0}", "```{0}``` or {3}", "[{0}, {3}]", '{{"a": {0}, "b": {3}}}', "<think>{1}</think>{3}{0}"]
NUMBER = re.compile(r"[ \t\r\n]*(-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)[ \t\r\n]*")
COUNT = int(os.environ.get("VERDICT_EXAMPLES", "500"))
EXAMPLES = settings(max_examples=COUNT, suppress_health_check=list(HealthCheck))
pytestmark = pytest.mark.timeout(600 + COUNT)


def numbers(data):
    """Every number of plain data, by its place."""
    if isinstance(data, dict | list):
        items = data.items() if isinstance(data, dict) else enumerate(data)
        return {(key, *rest): value for key, item in items for rest, value in numbers(item).items()}
    return {(): data} if isinstance(data, int | Decimal) and not isinstance(data, bool) else {}


def parsed(text, schema):
    """The numbers that are read in a text, None where none are."""
    try:
        return numbers(parse_structured(text, schema).model_dump(mode="json"))
    except ParseError:
        return None


def spelt(draw, verdict):
    """A verdict as some model would write it: JSON, or with single quotes."""
    plain = verdict.model_dump(mode="json")
    spellings = [json.dumps(plain), json.dumps(plain, ensure_ascii=False), json.dumps(plain, indent=1), repr(plain)]
    return draw(st.sampled_from(spellings))


def wrapped(draw, forms, text, other="", never=("</think>",)):
    form, around = draw(st.sampled_from(forms)), WORDS.filter(lambda words: not any(mark in words for mark in never))
    for mark, words in (("{1}", draw(around)), ("{2}", draw(around)), ("{0}", text), ("{3}", other)):
        form = form.replace(mark, words, 2)
    return form


@EXAMPLES
@given(st.data(), st.sampled_from(VERDICTS))
def test_wrapped_doubled_or_torn_it_is_the_verdict_that_was_written_or_none(data, kind):
    verdict = data.draw(kind)
    text = spelt(data.draw, verdict)
    torn = text[: data.draw(st.integers(1, len(text)))]
    for answer in (wrapped(data.draw, ALONE, text), torn, wrapped(data.draw, ALONE[:3], torn, never=("{", "}"))):
        assert parsed(answer, type(verdict)) in (numbers(verdict.model_dump()), None)
    other = data.draw(kind)
    if numbers(other.model_dump()) != numbers(verdict.model_dump()):
        beside = wrapped(data.draw, BESIDE, text, json.dumps(other.model_dump(mode="json")))
        assert parsed(beside, type(verdict)) is None
        assert parsed(torn[:-1] + json.dumps(other.model_dump(mode="json")), type(verdict)) is None or len(torn) == 1


@EXAMPLES
@given(st.data(), st.sampled_from(VERDICTS))
def test_a_number_is_what_strict_json_says_or_there_is_none(data, kind):
    """One number of a verdict is written otherwise."""
    verdict = data.draw(kind)
    before = numbers(verdict.model_dump())
    place = data.draw(st.sampled_from(sorted(before, key=str)))
    token = data.draw(st.sampled_from(NUMBERS) | st.text(max_size=4) | st.decimals(-20, 20, places=1).map(str))
    plain = verdict.model_dump(mode="json")
    inner = plain
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = "HERE"
    found = parsed(json.dumps(plain).replace('"HERE"', token), type(verdict))
    written = NUMBER.fullmatch(token.rstrip().removesuffix(","))  # a trailing comma does no harm
    assert found is None or (written and found == before | {place: Decimal(written[1])})


def reference(text):
    """The numbers that Python's own strict parser reads, None where it reads none or meets a key twice."""

    def unique(pairs):
        if len(dict(pairs)) < len(pairs):
            raise ValueError("twice")
        return dict(pairs)

    try:
        return numbers(json.loads(text, object_pairs_hook=unique, parse_float=Decimal))
    except (ValueError, RecursionError):
        return None


@EXAMPLES
@given(st.data(), st.sampled_from(VERDICTS))
def test_a_mutated_object_gives_what_a_strict_parser_reads_in_it_or_none(data, kind):
    verdict = data.draw(kind)
    text = spelt(data.draw, verdict)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        text = text[:at] + data.draw(st.sampled_from(["", *PIECES])) + text[at + data.draw(st.integers(0, 3)) :]
    found = parsed(text, type(verdict))
    if found is None:
        return
    for candidate in (text, text[text.find("{") : text.rfind("}") + 1]):
        if (read := reference(candidate)) is not None:
            assert found == read
            return
    # Repaired, or several times the same: each number stands in the text right after its key.
    plain = text.replace("\\u0073", "s")
    for (*_, key), value in found.items():
        tokens = re.findall(rf"""["']{key}["']\s*:\s*([^\s,}}\]]+)""", plain)
        assert any(NUMBER.fullmatch(token) and Decimal(token) == value for token in tokens), (key, value)
