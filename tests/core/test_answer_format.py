"""The answer format: what is judged of an answer, and that a checkpoint's format is not silently replaced."""

import pytest

from safer_steer.answer_format import AnswerFormat

TAGGED = AnswerFormat(system="Think, then answer.", tags=["plan", "thinking", "reply"])


@pytest.mark.parametrize(
    ("text", "answer", "problem"),
    [
        ("<plan>a leak</plan><thinking>b</thinking><reply>No.</reply>", "No.", False),
        ("<thinking>a leak</thinking>No.", "No.", True),
        ("No.", "No.", True),
        ("<thinking>a leak", "", True),
    ],
)
def test_only_the_answer_part_is_judged(text, answer, problem):
    said = TAGGED.split(text)
    assert (said.answer, bool(said.problem)) == (answer, problem)


def test_a_plain_format_takes_the_usual_tags_apart():
    assert AnswerFormat().split("<think>a leak</think><answer>No.</answer>").answer == "No."


def test_a_file_stands_for_its_content(tmp_path):
    (tmp_path / "own.yaml").write_text("system: S\ntags: [a]\n", encoding="utf-8")
    assert AnswerFormat.model_validate(str(tmp_path / "own.yaml")) == AnswerFormat(system="S", tags=["a"])


def test_a_checkpoint_says_its_format(tmp_path):
    checkpoint = str(tmp_path)
    assert TAGGED.problem(checkpoint) is None, "it says none"
    TAGGED.write(tmp_path)
    assert AnswerFormat.of_checkpoint(checkpoint) == TAGGED
    assert TAGGED.problem(checkpoint) is None
    assert "was trained with another one: <plan>" in (AnswerFormat().problem(checkpoint) or "")
