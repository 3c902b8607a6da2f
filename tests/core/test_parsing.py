"""From model text to scores: the right object, or an error; never a wrong number."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safer_steer.llm.parsing import ParseError, parse_structured
from safer_steer.verdict import TurnScores

GOOD = '{"safety": 8, "usefulness": 7, "faithfulness": 10}'
SCORES = TurnScores(safety=8, usefulness=7, faithfulness=10)


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        f"```json\n{GOOD}\n```",
        f"Here you are:\n{GOOD}\nAnything else?",
        GOOD.replace('"', "'"),
        GOOD.replace("10}", "10,}"),
        f'<think>{{"safety": 1, "usefulness": 1, "faithfulness": 1}}</think>{GOOD}',
        f'Opened in the prompt: {{"safety": 1, "usefulness": 1, "faithfulness": 1}}</think>{GOOD}',
        f'{GOOD} <think>was that right? {{"safety": 1, "usefulness": 1, "faithfulness": 1}}',
        f'A draft {{"safety": 99}} and then {GOOD}',
        f"{GOOD}\n{GOOD}",
    ],
)
def test_the_object_is_found(text):
    assert parse_structured(text, TurnScores) == SCORES


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I cannot judge this.",
        GOOD.replace("8", "99"),
        GOOD.replace("8", '"8/10"'),
        GOOD.replace("8", '"8"'),
        GOOD.replace("8", "8.5"),
        GOOD.replace("8", "true"),
        GOOD.replace("8", "null"),
        '{"safety": 8}',
        f"<think>{GOOD}",
        f"{GOOD}</think>",
        f"{GOOD} or {GOOD.replace('8', '9')}",
        pytest.param("[" * 3000, id="deep list"),
        pytest.param('{"a":' * 3000, id="deep object"),
    ],
)
def test_anything_else_is_an_error(text):
    with pytest.raises(ParseError):
        parse_structured(text, TurnScores)


@given(st.integers(min_value=1, max_value=len(GOOD) - 1))
def test_a_torn_answer_never_becomes_a_score(cut):
    with pytest.raises(ParseError):
        parse_structured(GOOD[:cut], TurnScores)


@given(st.text(max_size=60))
def test_no_text_crashes_the_parser(text):
    for candidate in (text, f"{{{text}}}", f"```{text}```"):
        try:
            parse_structured(candidate, TurnScores)
        except ParseError:
            pass
