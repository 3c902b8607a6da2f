"""A checkpoint's chat template says whether its answers begin inside a thought."""

from evaluation.multi_turn.thoughts import thought_opening
from miniature.student import build_processor


def test_a_checkpoint_is_asked_whether_its_template_opens_a_thought(tmp_path):
    processor, plain = build_processor(), tmp_path / "plain"
    processor.save_pretrained(plain)
    asked = "<|im_start|>assistant\n"
    processor.chat_template = processor.chat_template.replace(asked, f"{asked}<think>\n")
    processor.save_pretrained(tmp_path / "thinks")
    (tmp_path / "empty").mkdir()
    found = {name: thought_opening(str(tmp_path / name)) for name in ("plain", "thinks", "empty", "to_come")}
    assert found == {"plain": "", "thinks": "<think>", "empty": "", "to_come": ""}
