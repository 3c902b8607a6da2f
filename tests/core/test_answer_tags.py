"""Tagged answers: exactly the tags, each once, in order."""

import pytest

from safer_steer.answer_tags import (
    SplitAnswer,
    check_tags,
    join_parts,
    opening_at_end,
    split_answer,
    split_parts,
    with_opening,
)

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
        ("Mix A and B.\n</think>\nNo.", "Mix A and B.\n</think>\nNo.", "", ""),
        ("Close it with </think> there.", "Close it with </think> there.", "", ""),
        ("\n</think>\n\nNo.", "No.", "", ""),
        ("\ufeff\u200b<think>hm</think>No.", "No.", "hm", ""),
        ("<think>cut here", "", "cut here", "<think> is not closed"),
        ("<think></think>No.", "No.", "", ""),
        ("[THINK]hm[/THINK]No.", "No.", "hm", ""),
        ("◁think▷hm◁/think▷<think>so</think>No.", "No.", "hm\nso", ""),
        ("Use <think>x</think> tags.", "Use <think>x</think> tags.", "", ""),
        ("<thinking>x</thinking>No.", "<thinking>x</thinking>No.", "", ""),
        ("<seed:Think>hm</seed:think>No.", "No.", "hm", ""),
        ("hm\n</seed:think>\nNo.", "hm\n</seed:think>\nNo.", "", ""),
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
        ('<think>Do not say "</think>" yet.\n</think>No.', "No.", 'Do not say "</think>" yet.', ""),
        ("<think>No '<think>' or “</Think>” here.</think>No.", "No.", "No '<think>' or “</Think>” here.", ""),
        ('<think>I say "no"</think>"No."', '"No."', 'I say "no"', ""),
        ("", "", "", ""),
    ],
)
def test_thoughts_are_told_from_the_answer(text, answer, reasoning, problem):
    assert split_answer(text, ["think"]) == SplitAnswer(answer, reasoning, problem)
    assert split_answer(text, []) == SplitAnswer(text)


@pytest.mark.parametrize(
    ("prompt", "opening"),
    [
        ("user<|im_end|>\n<|im_start|>assistant\n<think>\n", "<think>"),
        ("<|im_start|>assistant\n<think>\n\n</think>\n\n", ""),
        ("<|im_start|>assistant\n", ""),
        ("Use <think> tags.<|im_end|>\n<|im_start|>assistant\n", ""),
        ("<|start|>assistant<|channel|>analysis<|message|>", "<|start|>assistant<|channel|>analysis<|message|>"),
        ("[INST]Hi[/INST][THINK]", "[THINK]"),
    ],
)
def test_a_prompt_opens_a_thought_only_at_its_end(prompt, opening):
    assert opening_at_end(prompt) == opening
    closing = {"<think>": "</think>", "[THINK]": "[/THINK]", "": ""}.get(opening, "<|channel|>final<|message|>")
    said = split_answer(with_opening(f"a leak{closing}No.", opening), ["think"])
    assert (said.answer, said.reasoning) == (("No.", "a leak") if opening else ("a leakNo.", ""))


def test_an_answer_that_opens_its_own_thought_gets_no_second_opening():
    assert with_opening(" <think>hm</think>No.", "<think>") == " <think>hm</think>No."
    assert with_opening("", "<think>") == ""


def test_long_runs_of_white_space_are_split_at_once():
    text = f"<thinking>a{' ' * 200_000}b</thinking><answer>c{' ' * 200_000}</answer>"
    assert split_parts(text, TAGS)[1] == "c"


def test_what_another_tags_end_quotes_is_no_thought():
    text = "<think>hm</think>No. It ends in </thinking> there."
    assert split_answer(text, ["thinking", "think"]).answer == "No. It ends in </thinking> there."


def test_an_answer_tag_that_is_missing_is_said():
    tags = (["thinking"], "answer")
    whole = split_answer("<thinking>a</thinking><answer>b</answer>", *tags)
    assert whole == SplitAnswer("b", "a")
    bare = split_answer("<thinking>a</thinking>b", *tags)
    assert bare == SplitAnswer("b", "a", "not in <answer>...</answer>")
