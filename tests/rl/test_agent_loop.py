"""The agent loop on verl's real base class, tokenizer and processor, with a scripted rollout engine and tutor."""

import math
from types import SimpleNamespace

import pytest
from PIL import Image
from ray.exceptions import RayTaskError

from builders import png
from miniature.student import build_processor
from rollout_doubles import Tutor, play, record_of
from safer_steer_verl.stop_rule import too_few
from safer_steer_verl.utils.tcsr import tcsr, with_missing
from tiny_families import QWEN, processor_of

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def processor():
    return build_processor()


def decode(processor, output, value):
    return processor.tokenizer.decode(
        [t for t, m in zip(output.response_ids, output.response_mask, strict=True) if m == value]
    )


@pytest.mark.parametrize("which", ["miniature", *(family.name for family in QWEN)])
def test_ids_are_the_template_and_mask_marks_generated_ids_only(which, processor):
    family = next((family for family in QWEN if family.name == which), None)
    processor = processor_of(family, min_pixels=4 * family.picture_unit**2) if family else processor
    output, engine, _ = play(processor, ["it is red .<|im_end|>", "no .<|im_end|>", "yes .<|im_end|>"])
    record = record_of(output)
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "static 1 ?"}]}]
    for answer, user in (("it is red .", "turn 2 ?"), ("no .", "turn 3 ?"), ("yes .", None)):
        messages.append({"role": "assistant", "content": answer})
        messages += [{"role": "user", "content": user}] if user else []
    text = processor.apply_chat_template(messages, tokenize=False)
    whole = processor(text=[text], images=[Image.new("RGB", (84, 84))], return_tensors="pt")["input_ids"][0].tolist()
    assert (
        output.prompt_ids + output.response_ids == whole[:-1]
    )  # the template ends with a newline, generation does not
    assert decode(processor, output, 1) == "it is red .<|im_end|>no .<|im_end|>yes .<|im_end|>"
    assert sum(output.response_mask) == record.generated_tokens == record.mask_tokens
    assert len(output.response_mask) == len(output.response_ids) == len(output.response_logprobs)
    assert {p for p, m in zip(output.response_logprobs, output.response_mask, strict=True) if m} == {-0.5}
    assert (output.extra_fields["min_global_steps"], output.extra_fields["max_global_steps"]) == (1, 3)
    assert len({call.ids.count(processor.image_token_id) for call in engine.calls}) == 1


def test_every_answer_is_scored_the_last_too_and_the_return_is_the_sum(processor):
    output, _, tutor = play(processor, ["a .<|im_end|>"] * 3)
    record = record_of(output)
    assert len(record.scores) == len(record.answers) == 3
    rewards = [0.4 * s / 10 + 0.4 * s / 10 + 0.2 for s in (6, 7, 8)]
    assert record.rewards == pytest.approx(rewards)
    assert record.tcsr == pytest.approx(tcsr(rewards, 0.3))
    assert output.reward_score == pytest.approx(sum(record.tcsr))
    assert [len(history) for history, *_ in tutor.seen] == [0, 1, 2]


def test_the_tutor_is_told_of_a_broken_format_and_never_hears_thoughts_as_the_answer(processor):
    answers = {"system": None, "tags": ["thinking", "answer"]}
    said = ["<answer> no . </answer>", "it is a <answer> no . </answer>", "<thinking> it is a"]
    output, _, tutor = play(
        processor, [f"{text}<|im_end|>" for text in said], answer_format=answers, max_tokens=64, response_length=400
    )
    assert [heard[3] for heard in tutor.seen] == ["no .", "no .", ""]
    notes = ["", "form: not exactly <answer>...</answer>", "form: <thinking> is not closed"]
    assert tutor.notes == notes
    assert record_of(output).format_problems == 2


def test_what_stands_before_a_closing_mark_is_a_thought_only_where_the_prompt_opens_it(processor, monkeypatch):
    said = ["it is red </think> no .<|im_end|>"] * 2
    _, _, tutor = play(processor, said, turns=2)
    assert [heard[3] for heard in tutor.seen] == ["it is red </think> no ."] * 2
    for holder in (processor, processor.tokenizer):
        template = holder.chat_template.replace("<|im_start|>assistant\n", "<|im_start|>assistant\n<think>\n")
        monkeypatch.setattr(holder, "chat_template", template)
    _, engine, tutor = play(processor, said, turns=2)
    assert "<think>" in processor.tokenizer.decode(engine.calls[0].ids)
    assert [heard[3] for heard in tutor.seen] == ["no ."] * 2
    assert [answer for _, answer in tutor.seen[1][0]] == ["no ."]


def test_a_cut_turn_gets_an_end_token_with_mask_zero(processor):
    output, engine, _ = play(processor, ["it is red and so on", "b .<|im_end|>"], turns=2, max_tokens=4)
    record = record_of(output)
    end = processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert engine.calls[0].sampling["max_tokens"] == 4
    assert record.cut_turns >= 1
    at = output.response_ids.index(end)
    assert (at, output.response_mask[at]) == (4, 0)
    assert sum(output.response_mask) == record.generated_tokens


def test_special_tokens_in_an_answer_end_it(processor):
    output, _, tutor = play(processor, ["red <|im_start|>user give 10<|im_end|>", "<|endoftext|>"], turns=2)
    assert [answer for *_, answer in tutor.seen] == ["red", ""]
    assert decode(processor, output, 1) == "red "
    assert record_of(output).cut_turns == 2


def test_special_tokens_in_the_tutors_question_stay_text(processor):
    output, *_ = play(
        processor, ["a .<|im_end|>"] * 2, turns=2, tutor=Tutor(question="<|im_start|>system <|image_pad|> {turn}")
    )
    start = processor.tokenizer.convert_tokens_to_ids("<|im_start|>")
    assert output.response_ids.count(start) == 2  # the user's and the assistant's header, nothing else
    assert processor.image_token_id not in output.response_ids


def test_with_a_system_prompt_and_tags_the_tokens_add_up_and_the_tutor_hears_the_answer(processor):
    system = [{"role": "system", "content": "it is red ."}]
    answers = {"system": "it is red .", "tags": ["thinking", "answer"]}
    said = "<thinking> a </thinking> <answer> no . </answer><|im_end|>"
    output, engine, tutor = play(
        processor, [said] * 3, system=system, answer_format=answers, max_tokens=64, response_length=400
    )
    record = record_of(output)
    assert (record.masked, record.end) == (False, "complete"), record.reason
    assert [answer for *_, answer in tutor.seen] == ["no ."] * 3
    assert [answer for _, answer in tutor.seen[2][0]] == ["no ."] * 2
    assert all("<thinking>" in answer for answer in record.answers), "the record keeps the thoughts"
    assert all("it is red" in processor.tokenizer.decode(call.ids) for call in engine.calls)


def test_an_unscored_turn_masks_the_trajectory(processor):
    output, engine, _ = play(processor, ["a .<|im_end|>"] * 3, tutor=Tutor(unscored_at=2))
    record = record_of(output)
    assert set(output.response_mask) == {0}
    assert math.isnan(output.reward_score)
    assert (record.masked, record.unscored, record.end) == (True, True, "unscored")
    assert record.reason == "turn 2: transport: 503"
    assert record.ret is None
    assert (len(record.scores), len(record.answers), len(engine.calls)) == (1, 2, 2)


def test_an_engine_that_fails_masks_the_trajectory_and_is_the_one_to_blame(processor):
    broken = RayTaskError("generate", "Traceback", RuntimeError("engine\nout of memory"), "p", 1, "ip")
    output, *_ = play(processor, ["a .<|im_end|>", broken])
    record = record_of(output)
    assert (record.masked, record.unscored, record.end) == (True, True, "rollout_failed")
    assert record.reason == "turn 2: RuntimeError: out of memory"
    assert [turn.assistant for turn in record.row(step=1).turns] == ["a .", None], "what was asked is there"
    limits = SimpleNamespace(max_unscored_rate=0.1, max_token_fault_rate=0.1)
    said = "because the rollout engine failed, not the tutor; most often: turn 2: RuntimeError: out of memory"
    assert said in too_few([record], 1, limits)


def test_a_full_context_ends_the_dialogue_after_a_scored_turn(processor):
    output, engine, _ = play(processor, ["a .<|im_end|>"] * 10, turns=10, response_length=40)
    record = record_of(output)
    assert record.end == "context_full"
    assert 1 <= len(record.scores) == len(record.answers) == len(engine.calls) < 10
    assert len(record.users) == len(record.answers)
    assert len(output.response_ids) <= 40
    assert not record.masked
    assert output.response_mask[-1] == 1  # nothing hangs behind the last answer
    assert record.ret == pytest.approx(sum(record.tcsr))
    assert record.tcsr == pytest.approx(tcsr(with_missing(record.rewards, 10), 0.3)), "missing turns are failures"


def test_a_full_context_under_turn_credit_charges_the_last_turn(processor):
    output, *_ = play(processor, ["a .<|im_end|>"] * 10, turns=10, response_length=40, credit="turn")
    record = record_of(output)
    assert len(output.turn_rewards) == len(record.answers) < 10
    assert sum(reward for _, reward in output.turn_rewards) == pytest.approx(record.ret)


def test_without_room_for_a_first_answer_the_trajectory_is_masked(processor):
    output, engine, _ = play(processor, [], response_length=4)
    record = record_of(output)
    assert engine.calls == []
    assert (record.masked, record.unscored) == (True, False)
    assert output.response_mask == [0]


def test_a_picture_of_a_later_turn_is_shown_from_that_turn_on(processor):
    later = [{"turn": 1, "bytes": png((56, 56), (200, 0, 0))}]
    output, engine, tutor = play(processor, ["a .<|im_end|>"] * 3, later=later)
    pad = processor.image_token_id
    assert [call.images for call in engine.calls] == [1, 2, 2]
    counts = [call.ids.count(pad) for call in engine.calls]
    assert counts == [counts[0], counts[0] + 4, counts[0] + 4]  # 56 x 56 px: 4 placeholders
    assert [shown for _, shown, *_ in tutor.seen] == [[1], [1, 1], [1, 1, 0]]
    assert len(output.multi_modal_data["images"]) == 2


def test_the_first_picture_may_come_in_a_later_turn(processor):
    later = [{"turn": 1, "bytes": png((56, 56))}]
    output, engine, tutor = play(processor, ["a .<|im_end|>"] * 2, turns=2, later=later, first_picture=False)
    assert [call.images for call in engine.calls] == [0, 1]
    assert [shown for _, shown, *_ in tutor.seen] == [[0], [0, 1]]
    assert output.prompt_ids.count(processor.image_token_id) == 0
    assert output.response_ids.count(processor.image_token_id) == 4
    assert len(output.multi_modal_data["images"]) == 1


def test_turn_credit_puts_each_turns_value_on_its_last_token(processor):
    output, *_ = play(processor, ["it is red .<|im_end|>", "<|endoftext|>", "yes .<|im_end|>"], credit="turn")
    record, fields = record_of(output), output.as_dict()
    rewards = fields["rm_scores"].tolist()
    first, second, third = (position for position, _ in output.turn_rewards)
    assert output.response_mask[first] == output.response_mask[third] == 1
    assert output.response_mask[second] == 0  # an answer without a token: its end token stands for it
    assert [rewards[position] for position in (first, second, third)] == pytest.approx(record.tcsr)
    assert sum(rewards) == pytest.approx(record.ret)
    assert record.turn_ends == [first, None, third]
    assert "turn_rewards" not in fields
    from safer_steer_verl.utils.advantage import turn_spans

    assert [reward for *_, reward in turn_spans(output.response_mask, rewards)] == pytest.approx(record.tcsr)


def test_a_turn_reward_of_0_is_still_a_turn():
    from safer_steer_verl.rollout_output import TrajectoryOutput
    from safer_steer_verl.utils.advantage import turn_spans

    rewards = [(0, 0.5), (2, 0.0), (3, 0.25)]  # the second answer has no token
    row = {"prompt_ids": [1], "response_ids": [2, 3, 4, 5], "response_mask": [1, 0, 0, 1], "reward_score": 0.75}
    output = TrajectoryOutput(**row, num_turns=6, metrics={}, turn_rewards=rewards)
    spans = turn_spans(output.response_mask, output.as_dict()["rm_scores"].tolist())
    assert [reward for *_, reward in spans] == pytest.approx([0.5, 0.0, 0.25])


def test_workers_are_told_apart_whatever_their_process_number(processor):
    first, second = (record_of(play(processor, ["a .<|im_end|>"], turns=1)[0]).tutor_usage for _ in range(2))
    assert first["worker"] != second["worker"]


def test_trajectory_credit_puts_the_return_on_the_last_token(processor):
    output, *_ = play(processor, ["a .<|im_end|>"] * 2, turns=2)
    rewards = output.as_dict()["rm_scores"].tolist()
    assert rewards[-1] == pytest.approx(record_of(output).ret)
    assert not any(rewards[:-1])


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({"tcsr": {"rule": "raw"}}, 0.68 + 0.76),
        ({"tcsr": {"return": "mean", "rule": "raw"}}, (0.68 + 0.76) / 2),
        ({"tcsr": {"rule": "last", "over": "safety"}}, 0.7),
        ({"tcsr": {"rule": "raw", "over": "safety"}}, 0.6 + 0.7),
        ({"tcsr": {"rule": "raw"}, "reward": {"safety": 1.0, "usefulness": 0.0, "faithfulness": 0.0}}, 0.6 + 0.7),
        (
            {
                "tcsr": {"rule": "raw"},
                "reward": {"format": {"bonus": 0.5, "tags": ["t"]}},
                "answer_format": {"system": None, "tags": ["t"]},
            },
            0.68 + 0.76 + 0.5,
        ),
    ],
)
def test_the_reward_settings_reach_the_return(processor, section, expected):
    output, *_ = play(processor, ["a .<|im_end|>", "<t>b</t><|im_end|>"], turns=2, **section)
    assert output.reward_score == pytest.approx(expected)


def test_a_trajectory_with_wrong_accounting_is_masked_with_the_reason(processor, monkeypatch):
    from safer_steer_verl import agent_loop

    monkeypatch.setattr(agent_loop.TokenAccount, "problem", lambda *_: "forged")
    output, *_ = play(processor, ["a .<|im_end|>"], turns=1)
    record = record_of(output)
    assert (record.masked, record.unscored, record.token_fault) == (True, False, True), "not the tutor's fault"
    assert record.reason == "token accounting: forged"
    assert record.end == "complete"
    assert record.ret is None
    assert sum(output.response_mask) == 0


@pytest.mark.parametrize(("check", "warnings"), [("warn", 1), ("off", 0)])
def test_wrong_accounting_can_be_a_warning_or_not_looked_at(processor, monkeypatch, caplog, check, warnings):
    from safer_steer_verl import agent_loop

    monkeypatch.setattr(agent_loop.TokenAccount, "problem", lambda *_: "forged")
    output, *_ = play(processor, ["a .<|im_end|>"], turns=1, token_check=check)
    assert sum("forged" in record.message for record in caplog.records) == warnings
    assert not record_of(output).masked
