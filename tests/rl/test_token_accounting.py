"""Token accounting on Qwen2.5-VL's template with the miniature's real tokenizer and processor."""

from pathlib import Path

import pytest
from PIL import Image

from miniature.student import build_processor
from safer_steer_verl.utils.token_accounting import (
    TokenAccount,
    collapse_runs,
    keep_turn,
    special_token_ids,
)

END, START, OTHER = 2, 1, 3


@pytest.fixture(scope="module")
def processor():
    return build_processor()


@pytest.mark.parametrize(
    ("generated", "ids", "closed"),
    [
        ([5, 6, END], [5, 6, END], True),
        ([5, 6], [5, 6], False),
        ([5, START, 6, END], [5], False),
        ([OTHER], [], False),
        ([5, END, 7], [5, END], True),
        ([], [], False),
    ],
)
def test_a_turn_is_cut_at_the_first_special_token(generated, ids, closed):
    kept = keep_turn(generated, END, frozenset({END, START, OTHER}))
    assert (kept.ids, kept.closed) == (ids, closed)


def test_runs_of_placeholders_collapse():
    assert collapse_runs([1, 9, 9, 9, 2, 9, 5, 5], frozenset({9})) == [1, 9, 2, 9, 5, 5]


def dialogue(*texts):
    roles = ("user", "assistant")
    first = [{"type": "image"}, {"type": "text", "text": texts[0]}]
    messages = [{"role": "user", "content": first}]
    return messages + [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts[1:], start=1)]


def engine_ids(processor, messages, picture):
    """Ids of a whole dialogue with pictures expanded, ending at the last end token, as an engine leaves them."""
    text = processor.apply_chat_template(messages, tokenize=False)
    ids = processor(text=[text], images=[picture], return_tensors="pt")["input_ids"][0].tolist()
    end = processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    return ids[: len(ids) - ids[::-1].index(end)]


def test_ids_of_the_template_have_no_problem(processor):
    messages = dialogue("Hi", "Hello", "Bye", "So long")
    picture = Image.new("RGB", (84, 84))
    ids = engine_ids(processor, messages, picture)
    account = TokenAccount(processor.tokenizer, processor)
    assert account.problem(ids, messages) is None
    assert account.placeholder_problem(ids, [picture]) is None


def test_another_spelling_of_an_answer_is_fine(processor):
    messages = dialogue("Hi", "Hello")
    ids = engine_ids(processor, messages, Image.new("RGB", (84, 84)))
    tokenizer = processor.tokenizer
    answer = tokenizer("Hello", add_special_tokens=False)["input_ids"]
    letters = [token for letter in "Hello" for token in tokenizer(letter, add_special_tokens=False)["input_ids"]]
    at = max(i for i in range(len(ids)) if ids[i : i + len(answer)] == answer)
    spelled = ids[:at] + letters + ids[at + len(answer) :]
    assert TokenAccount(tokenizer, processor).problem(spelled, messages) is None


REAL_TOKENIZER = next(
    (
        folder
        for parent in Path(__file__).resolve().parents
        if (folder := parent / "shared" / "data" / "qwen3_tokenizer").is_dir()
    ),
    None,
)
CHATML = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.mark.skipif(REAL_TOKENIZER is None, reason="no ../shared/data/qwen3_tokenizer beside this checkout")
def test_a_dialogue_grown_turn_by_turn_is_the_template_of_the_whole_with_the_real_tokenizer():
    """Case 16: "Hi" / "Hello" / "Bye"; the ids as literals of Qwen's vocabulary, the answers as sampled tokens."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(REAL_TOKENIZER)
    tokenizer.chat_template = CHATML
    account = TokenAccount(tokenizer, None)
    start, end, newline, assistant = 151644, 151645, 198, 77091
    header = [start, assistant, newline]
    first = [{"role": "user", "content": "Hi"}]
    text = tokenizer.apply_chat_template(first, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert ids[-3:] == header
    grown, messages = list(ids), first
    for answer, question in (("Hello", "Bye"), ("So long <answer>", None)):
        kept = keep_turn([*tokenizer(answer)["input_ids"], end, 1], end, special_token_ids(tokenizer))
        grown += kept.ids
        messages = [*messages, {"role": "assistant", "content": answer}]
        assert account.problem(grown, messages) is None
        if question:
            grown += [newline, *tokenizer(f"<|im_start|>user\n{question}<|im_end|>\n")["input_ids"], *header]
            messages = [*messages, {"role": "user", "content": question}]
    assert account.expected_ids(messages) == [*grown, newline]
    assert account.problem([i for i in grown if i != newline], messages) is not None


def test_lost_newline_repeated_system_prompt_and_missing_header_are_found(processor):
    messages = dialogue("Hi", "Hello", "Bye", "So long")
    picture = Image.new("RGB", (84, 84))
    ids = engine_ids(processor, messages, picture)
    account = TokenAccount(processor.tokenizer, processor)
    end = processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    after_answer = [i for i, token in enumerate(ids) if token == end][2] + 1
    assert "message" in account.problem(ids[:after_answer] + ids[after_answer + 1 :], messages)
    system = account.expected_ids([{"role": "system", "content": "again"}])
    assert "messages in the ids" in account.problem(ids[:after_answer] + system + ids[after_answer:], messages)
    assert account.problem(ids, dialogue("Hi", "Hello", "Bye", "So")) is not None


def test_placeholders_expanded_twice_are_found(processor):
    messages = dialogue("Hi", "Hello")
    picture = Image.new("RGB", (56, 56))
    ids = engine_ids(processor, messages, picture)
    account = TokenAccount(processor.tokenizer, processor)
    pad = processor.image_token_id
    assert ids.count(pad) == 4
    assert account.placeholder_problem(ids, [picture]) is None
    twice = [token for i in ids for token in ([i] * 4 if i == pad else [i])]
    assert account.problem(twice, messages) is None
    assert account.placeholder_problem(twice, [picture]) == "16 picture placeholders, 4 expected"
