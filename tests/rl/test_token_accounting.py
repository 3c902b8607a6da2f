"""Token accounting with the published template and the processor of every model family, and few words."""

import pytest
from PIL import Image

from safer_steer_verl.utils.token_accounting import TokenAccount, collapse_runs, keep_turn
from tiny_families import QWEN, processor_of

END, START, OTHER = 2, 1, 3


@pytest.fixture(scope="module", params=QWEN, ids=lambda family: family.name)
def processor(request):
    return processor_of(request.param, min_pixels=4 * request.param.picture_unit**2)


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


def test_lost_newline_repeated_system_prompt_and_missing_header_are_found(processor):
    messages = dialogue("Hi", "Hello", "Bye", "So long")
    picture = Image.new("RGB", (84, 84))
    ids = engine_ids(processor, messages, picture)
    account = TokenAccount(processor.tokenizer, processor)
    end = processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    after_answer = [i for i, token in enumerate(ids) if token == end][-3] + 1
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
