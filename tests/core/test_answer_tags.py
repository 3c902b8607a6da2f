"""Tagged answers: exactly the tags, each once, in order."""

import pytest

from safer_steer.answer_tags import SplitAnswer, check_tags, join_parts, split_answer, split_parts

TAGS = ["thinking", "answer"]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (
            "<thinking> It is red.\n</thinking>\n<answer>A red <b>box</b>.</answer>\n",
            ["It is red.", "A red <b>box</b>."],
        ),
        ("<thinking>a</thinking> so <answer>b</answer>", None),
        ("<answer>b</answer><thinking>a</thinking>", None),
        ("<thinking>a</thinking><answer> </answer>", None),
        ("<thinking>a</thinking><answer>b</answer><answer>c</answer>", None),
        ("<thinking>a<answer>b</answer></thinking>", None),
        ("plain", None),
    ],
)
def test_parts_of_a_tagged_answer(text, parts):
    assert split_parts(text, TAGS) == parts


def test_plain_answers_have_one_part_and_other_tags_can_be_written():
    assert split_parts(" So. ", []) == ["So."]
    assert split_parts("  ", []) is None
    parts = split_parts("<thinking>a</thinking><answer>b</answer>", TAGS)
    assert join_parts(parts, ["think", "answer"]) == "<think>a</think><answer>b</answer>"
    assert join_parts(parts, []) == "b"


@pytest.mark.parametrize("tags", [["<answer>"], ["a b"], [""], ["answer", "answer"]])
def test_tag_names_are_checked(tags):
    with pytest.raises(ValueError, match="tag"):
        check_tags(tags)
    assert check_tags(TAGS) == TAGS


@pytest.mark.parametrize(
    ("text", "answer", "reasoning", "problem"),
    [
        ("A plain answer. ", "A plain answer. ", "", ""),
        ("<think>hm</think>\n\nNo.", "No.", "hm", ""),
        ("  <think>\nhm\n</think><think>so</think> No. ", "No.", "hm\nso", ""),
        ("hm, opened in the prompt\n</think>\nNo.", "No.", "hm, opened in the prompt", ""),
        ("<think>cut here", "", "cut here", "<think> is not closed"),
        ("<think></think>No.", "No.", "", ""),
        ("[THINK]hm[/THINK]No.", "No.", "hm", ""),
        ("◁think▷hm◁/think▷<think>so</think>No.", "No.", "hm\nso", ""),
        ("Use <think>x</think> tags.", "Use <think>x</think> tags.", "", ""),
        ("<thinking>x</thinking>No.", "<thinking>x</thinking>No.", "", ""),
        ("<seed:Think>hm</seed:think>No.", "No.", "hm", ""),
        ("hm\n</seed:think>\nNo.", "No.", "hm", ""),
        (
            "<|start|>assistant<|channel|>analysis<|message|>hm",
            "",
            "hm",
            "<|start|>assistant<|channel|>analysis<|message|> is not closed",
        ),
        ("<|channel|>final <|constrain|>json<|message|>No.", "No.", "", ""),
        ("analysisHm.assistantfinalNo.", "No.", "Hm.", ""),
        ("analysis: No.", "analysis: No.", "", ""),
        ("Analysis of it: No.", "Analysis of it: No.", "", ""),
        ("<|START_THINKING|>hm<|END_THINKING|>No.", "No.", "hm", ""),
        ("<scratchpad>hm</scratchpad>No.", "<scratchpad>hm</scratchpad>No.", "", ""),
        ("<think>hm</think>No. Write </seed:think> there.", "No. Write </seed:think> there.", "hm", ""),
        ("Close it with `</think>`. Then answer.", "Close it with `</think>`. Then answer.", "", ""),
        ('I must not say "</think>" yet.\n</think>No.', "No.", 'I must not say "</think>" yet.', ""),
        ("<think>No '<think>' or “</Think>” here.</think>No.", "No.", "No '<think>' or “</Think>” here.", ""),
        ('<think>I say "no"</think>"No."', '"No."', 'I say "no"', ""),
        ("", "", "", ""),
    ],
)
def test_thoughts_are_told_from_the_answer(text, answer, reasoning, problem):
    assert split_answer(text, ["think"]) == SplitAnswer(answer, reasoning, problem)
    assert split_answer(text, []) == SplitAnswer(text)


def test_what_another_tags_end_quotes_is_no_thought():
    text = "<think>hm</think>No. It ends in </thinking> there."
    assert split_answer(text, ["thinking", "think"]).answer == "No. It ends in </thinking> there."


def test_an_answer_tag_that_is_missing_is_said():
    tags = (["thinking"], "answer")
    whole = split_answer("<thinking>a</thinking><answer>b</answer>", *tags)
    assert whole == SplitAnswer("b", "a")
    bare = split_answer("<thinking>a</thinking>b", *tags)
    assert bare == SplitAnswer("b", "a", "not in <answer>...</answer>")
