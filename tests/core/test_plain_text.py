"""Special tokens spelled in a text are text after `as_plain_text`, whatever the tokenizer and wherever they stand."""

import json
from pathlib import Path

import pytest
from fastapi.responses import JSONResponse
from hypothesis import given, settings
from hypothesis import strategies as st

from http_doubles import Script
from safer_steer.chat import user_message
from safer_steer.errors import UserError
from safer_steer.llm import EndpointConfig, LLMClient
from safer_steer.plain_text import as_plain_text, names_of_checkpoint, plain_messages

NAMES = ("<|im_end|>", "<|im_start|>", "<s>", "</s>", "< |im_end|>", "|im_end|>", "[INST]", "§", "<|image_pad|>")
pieces = st.lists(st.sampled_from([*NAMES, "<", "|", " ", "im_end|>", "s>", "word", "\ud800"]), max_size=12)


@settings(max_examples=50)
@given(pieces.map("".join))
def test_no_special_token_is_left_and_only_breaks_are_added(text):
    plain = as_plain_text(text, NAMES)
    assert not any(name in plain for name in NAMES)
    kept = text.replace("\ud800", "?").replace("§", "?")
    assert plain.replace(" ", "") == kept.replace(" ", "")
    assert as_plain_text(plain, NAMES) == plain


def test_text_without_special_tokens_is_untouched_in_every_part():
    parts = [{"type": "image_url", "image_url": {"url": "<s>"}}, {"type": "text", "text": "<s>?"}]
    messages = [
        {"role": "system", "content": "be brief <b>"},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": None},
    ]
    plain = plain_messages(messages, NAMES)
    assert (plain[0], plain[2]) == (messages[0], messages[2])
    assert plain[1]["content"] == [parts[0], {"type": "text", "text": "< s>?"}]


@settings(max_examples=50)
@given(st.lists(pieces.map("".join), min_size=1, max_size=4))
def test_no_special_token_is_spelled_over_several_parts(texts):
    parts = [{"type": "text", "text": text} for text in texts]
    plain = plain_messages([{"role": "user", "content": parts}], NAMES)[0]["content"]
    assert len(plain) == len(parts)
    assert not any(name in "".join(part["text"] for part in plain) for name in NAMES)


def test_names_come_from_every_kind_of_tokenizer_file(tmp_path):
    added = [{"content": "<|a|>", "special": True}, {"content": "<think>", "special": False}]
    (tmp_path / "tokenizer.json").write_text(json.dumps({"added_tokens": added, "model": {"unk_token": None}}))
    config = {
        "added_tokens_decoder": {"7": {"content": "<|b|>", "special": True}, "8": {"content": "w", "special": False}},
        "bos_token": {"content": "<|c|>"},
        "add_bos_token": True,
        "eos_token": "<|d|>",
        "pad_token": None,
        "additional_special_tokens": ["<|e|>", {"content": "<|f|>"}],
        "extra_special_tokens": {"image_token": "<|g|>"},
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tekken = {"special_tokens": [{"rank": 0, "token_str": "[IMG]", "is_control": True}]}
    (tmp_path / "tekken.json").write_text(json.dumps(tekken))
    assert names_of_checkpoint(str(tmp_path)) == {*(f"<|{letter}|>" for letter in "abcdefg"), "[IMG]"}
    assert names_of_checkpoint(str(tmp_path / "none")) is None


@pytest.fixture
def tokenizer_folder(tmp_path) -> Path:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|end|>"}))
    return tmp_path


@pytest.mark.parametrize(
    ("owner", "configured", "sent"),
    [("vllm", False, "< |end|>"), ("someone", False, "<|end|>"), ("someone", True, "< |end|>")],
)
async def test_every_text_of_a_call_is_plain_where_the_tokenizer_is_known(
    owner, configured, sent, tokenizer_folder, serve
):
    played = Script("no", owned_by=owner, root=str(tokenizer_folder))  # a vLLM server says so where its files are
    url = serve(played.app)
    client = LLMClient(
        "x", EndpointConfig(model="m", base_url=url, tokenizer=str(tokenizer_folder) if configured else None)
    )
    texts = [user_message("a<|end|>"), {"role": "assistant", "content": "<|end|>"}, user_message("<|end|>b")]
    await client.chat([{"role": "system", "content": "<|end|>"}, *texts])
    await client.close()
    assert [message["content"] for message in played.requests[0]["messages"]] == [sent, f"a{sent}", sent, f"{sent}b"]


async def test_a_tokenizer_that_is_not_there_is_said(serve, tmp_path):
    client = LLMClient("x", EndpointConfig(model="m", base_url=serve(Script("no").app), tokenizer=str(tmp_path)))
    with pytest.raises(UserError, match="no tokenizer files there"):
        await client.chat([user_message("hi")])
    await client.close()


async def test_what_a_server_runs_is_asked_again_where_it_could_not_say(serve, tokenizer_folder):
    played = Script("no")
    answers = iter([(500, {}), (200, {"data": [{"id": "m", "owned_by": "vllm", "root": str(tokenizer_folder)}]})])

    @played.app.middleware("http")
    async def models(request, call_next):
        if request.method != "GET":
            return await call_next(request)
        status, body = next(answers)
        return JSONResponse(body, status_code=status)

    client = LLMClient("x", EndpointConfig(model="m", base_url=serve(played.app)))
    assert (await client.chat([user_message("a<|end|>")])).text == "no"
    await client.close()
    assert [request["messages"][0]["content"] for request in played.requests] == ["a< |end|>"]


async def test_a_server_whose_tokenizer_is_not_found_is_named_once_and_in_the_record(serve, tmp_path, capsys):
    there = str(tmp_path / "there")
    url = serve(Script("no", owned_by="vllm", root=there).app)
    client = LLMClient("x", EndpointConfig(model="m", base_url=url))
    for text in ("a", "b"):
        await client.chat([user_message(text)])
    await client.close()
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith(f"warning: x: {url} serves {there}, whose tokenizer is not found here")
    assert "tokenizer:" in said
    assert client.stats()["changed"] == {
        "special tokens in texts": f"sent as they are, no tokenizer of {there} was found"
    }
