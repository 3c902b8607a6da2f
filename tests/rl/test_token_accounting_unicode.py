"""The token check never masks a correct trajectory: any Unicode text asked, any ids sampled.

With the miniature's tokenizer, which makes NFC of text as Qwen's does, and with Qwen's own where it is there.
"""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from miniature.student import build_tokenizer
from safer_steer.plain_text import as_plain_text, names_of_tokenizer
from safer_steer_verl.utils.token_accounting import TokenAccount, keep_turn, special_token_ids
from tiny_families import NEEDS_REAL_TOKENIZER, REAL_TOKENIZER

CHATML = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Decomposed letters, singletons, Hangul Jamo, composition exclusions, emoji with joiners, directions, odd blanks,
# compatibility forms, half surrogates and the spelling of special tokens.
ODD = (
    "e\u0301 \u2126 \u212b \u212a \u0344 \u1100\u1161\u11a8 \u0958 \u0915\u093c o\u0302\u0323 \ufb01 \uff21 "
    "\u200b\u200d\u202e \U0001f469\u200d\U0001f52c \u0338 >\u0338 \r\n\n\t \u2028 \u00a0 \ufffd \ud800 \U0001d15e "
    "<|im_start|>user <|im_end|>"
)
MARKS = ["<|im_start|>", "<|im_end|>"]
TEXT = st.text(st.sampled_from(ODD) | st.characters(), max_size=24) | st.sampled_from(ODD.split(" "))


@pytest.fixture(scope="module", params=["miniature", pytest.param("Qwen", marks=NEEDS_REAL_TOKENIZER)])
def tokenizer(request):
    from transformers import AutoTokenizer

    tokenizer = build_tokenizer() if request.param == "miniature" else AutoTokenizer.from_pretrained(REAL_TOKENIZER)
    tokenizer.chat_template = CHATML
    composed, decomposed = tokenizer("\u00e9")["input_ids"], tokenizer("e\u0301")["input_ids"]
    assert composed == decomposed, "it makes NFC of text"
    return tokenizer


@pytest.fixture(scope="module")
def account(tokenizer):
    return TokenAccount(tokenizer, None)


@pytest.mark.parametrize("tokenizer", [pytest.param("Qwen", marks=NEEDS_REAL_TOKENIZER)], indirect=True)
def test_a_dialogue_grown_turn_by_turn_is_the_template_of_the_whole(tokenizer, account):
    """Case 16: "Hi" / "Hello" / "Bye"; the ids as literals of Qwen's vocabulary, the answers as sampled tokens."""
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


def sampled(tokenizer, text: str) -> list[int]:
    """Ids that say `text` as it stands: character by character, so that nothing is put together."""
    text = text.encode("utf-8", "replace").decode()
    return [token for letter in text for token in tokenizer(letter, add_special_tokens=False)["input_ids"]]


def grow(tokenizer, first: str, turns: list[tuple[list[int], str]]) -> tuple[list[int], list[dict]]:
    """A trajectory as the agent loop grows it on verl's own builder: ids, and the messages they stand for."""
    from verl.utils.tokenizer.continuous_token import QwenContinuousTokenBuilder

    builder = QwenContinuousTokenBuilder(tokenizer)
    end, special = tokenizer.convert_tokens_to_ids("<|im_end|>"), special_token_ids(tokenizer)
    messages = [{"role": "user", "content": as_plain_text(first, names_of_tokenizer(tokenizer))}]
    ids = builder.build_initial_tokens(messages)
    for number, (answer, question) in enumerate(turns):
        kept = keep_turn([*answer, end], end, special)
        ids = builder.merge_assistant_tokens(ids, kept.ids if kept.closed else [*kept.ids, end]).token_ids
        text = tokenizer.decode(kept.ids[:-1] if kept.closed else kept.ids)
        messages = [*messages, {"role": "assistant", "content": text}]
        if number < len(turns) - 1:
            asked = [*messages, {"role": "user", "content": as_plain_text(question, names_of_tokenizer(tokenizer))}]
            ids, messages = builder.merge_context_tokens(messages, asked, ids).token_ids, asked
    return ids, messages


@settings(max_examples=60)
@given(TEXT, st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=3))
@example(ODD, [(ODD, ODD), (ODD, "")])
@example("\nuser", [("\n\nanswer\n", "\n\n asked \n")])
def test_any_text_of_user_tutor_and_student_adds_up(tokenizer, account, first, turns):
    ids, messages = grow(tokenizer, first, [(sampled(tokenizer, answer), question) for answer, question in turns])
    assert account.problem(ids, messages) is None


@settings(max_examples=60)
@given(st.data())
def test_any_ids_that_a_model_may_sample_add_up(tokenizer, account, data):
    """Also pieces of characters, which are no text by themselves."""
    word = st.integers(0, min(special_token_ids(tokenizer)) - 1)
    answers = data.draw(st.lists(st.lists(word, max_size=20), min_size=1, max_size=3))
    ids, messages = grow(tokenizer, "Hi", [(answer, "Go on .") for answer in answers])
    assert account.problem(ids, messages) is None


@settings(max_examples=40)
@given(st.data())
def test_a_lost_or_changed_id_is_still_found(tokenizer, account, data):
    special = min(special_token_ids(tokenizer))
    answer = data.draw(st.lists(st.integers(special // 2, special - 1), min_size=1, max_size=8))
    ids, messages = grow(tokenizer, "Hi", [(answer, "Go on ."), (answer, "")])
    changed = list(ids)
    at = data.draw(st.integers(0, len(ids) - 1))
    changed[at] = data.draw(
        st.sampled_from([*tokenizer.convert_tokens_to_ids(MARKS), *tokenizer("\n")["input_ids"], special // 3])
    )
    for wrong in (changed, ids[:at] + ids[at + 1 :]):
        if tokenizer.decode(wrong) != tokenizer.decode(ids):
            assert account.problem(wrong, messages) is not None
