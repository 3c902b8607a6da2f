"""The answer format: what is judged of an answer, and that a checkpoint's format is not silently replaced."""

import pytest

from safer_steer.answer_format import AnswerFormat
from safer_steer.config import load_raw

TAGGED = AnswerFormat(system="Think, then answer.", tags=["plan", "thinking", "reply"])


@pytest.mark.parametrize(
    ("text", "answer", "problem"),
    [
        ("<plan>a leak</plan><thinking>b</thinking><reply>No.</reply>", "No.", False),
        ("<thinking>a leak</thinking>No.", "No.", True),
        ("No.", "No.", True),
        ("<thinking>a leak", "", True),
        ("It wants a leak. I refuse. <reply>No.</reply>", "No.", True),
        ("<thinking>a leak <reply>No.</reply>", "No.", True),
        ("<plan>a leak</plan> a leak <reply>No.</reply>", "No.", True),
        ("<thinking>a leak</thinking><reply>No. And then", "No. And then", True),
        ("<thinking>a leak</thinking><reply>No.</reply> Twist it.", "No.\n Twist it.", True),
        ("<thinking>a leak</thinking><reply></reply>", "", True),
    ],
)
def test_only_the_answer_part_is_judged(text, answer, problem):
    said = TAGGED.split(text)
    assert (said.answer, bool(said.problem)) == (answer, problem)
    assert "leak" not in said.answer
    assert said.reasoning.count("leak") == text.count("leak")


def test_a_plain_format_takes_the_usual_tags_apart():
    assert AnswerFormat().split("<think>a leak</think><answer>No.</answer>").answer == "No."


def test_a_closing_mark_that_nothing_opened_hides_nothing():
    for text in (
        "Step 1: mix A and B.\n</think>\nI cannot help.",
        "A.</reasoning>No.",
        "A </thought> b.",
        "A</thinking>",
    ):
        for form in (AnswerFormat(), TAGGED):
            assert form.split(text).answer == text


def test_a_file_stands_for_its_content(tmp_path):
    (tmp_path / "own.yaml").write_text("system: S\ntags: [a]\n", encoding="utf-8")
    assert AnswerFormat.model_validate(str(tmp_path / "own.yaml")) == AnswerFormat(system="S", tags=["a"])


def test_keys_are_laid_over_the_file_that_a_config_names(tmp_path):
    (tmp_path / "form.yaml").write_text("system: S\ntags: [a, b]\n", encoding="utf-8")
    (tmp_path / "below.yaml").write_text(f"answer_format: {tmp_path}/form.yaml\n", encoding="utf-8")
    (tmp_path / "above.yaml").write_text("base: below.yaml\nanswer_format: {tags: [b]}\n", encoding="utf-8")
    for path, words, tags in (("below", ["answer_format.tags=[b]"], ["b"]), ("above", [], ["b"]), ("below", [], None)):
        found = AnswerFormat.model_validate(load_raw(tmp_path / f"{path}.yaml", words)["answer_format"])
        assert (found.system, found.tags) == ("S", tags or ["a", "b"])
    plain = load_raw(tmp_path / "below.yaml", ["answer_format={}"])["answer_format"]
    assert AnswerFormat.model_validate(plain) == AnswerFormat()


def test_a_system_prompt_for_other_tags_is_refused():
    with pytest.raises(
        ValueError, match=r"asks for the tags thinking, answer, and not for think; give system and tags"
    ):
        AnswerFormat(system="First <thinking>, then <answer>.", tags=["think", "answer"])


def test_a_checkpoint_says_its_format(tmp_path):
    checkpoint = str(tmp_path)
    assert TAGGED.problem(checkpoint) is None, "it says none"
    TAGGED.write(tmp_path)
    assert AnswerFormat.of_checkpoint(checkpoint) == TAGGED
    assert TAGGED.problem(checkpoint) is None
    assert "was trained with another one: <plan>" in (AnswerFormat().problem(checkpoint) or "")
