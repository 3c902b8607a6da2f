"""Which names of the environment hold credentials."""

import pytest

from safer_steer.secrets import is_stand_in, refuse_credentials, without_keys


@pytest.mark.parametrize(
    "name", ["AWS_SECRET_ACCESS_KEY", "HUGGING_FACE_HUB_TOKEN", "GITHUB_TOKEN", "AZURE_OPENAI_KEY", "JUDGE_API_KEY"]
)
def test_known_names_are_struck_out(name, monkeypatch):
    monkeypatch.setenv(name, "not-for-anyone-else")
    assert without_keys("it was not-for-anyone-else") == f"it was [{name}]"


def test_token_counts_are_no_credentials():
    assert refuse_credentials({"max_token": 5, "eos_token": "<end>"}) == {"max_token": 5, "eos_token": "<end>"}


@pytest.mark.parametrize(
    "value", ["x", "none", "EMPTY", "placeholder", "not-needed", "sk-no-key-required", "your_api_key_here", "lm-studio"]
)
def test_what_says_that_there_is_no_key_is_left_in_texts(value, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", value)
    text = f"lm-studio went wrong: {value}, text"
    assert without_keys(text) == text


@pytest.mark.parametrize("value", ["sk-canary-5d1f0c7a9b", "token-abc123", "my-secret-key", "canary-key", "12345678"])
def test_a_key_is_a_key_whatever_it_looks_like(value, monkeypatch):
    monkeypatch.setenv("JUDGE_API_KEY", value)
    assert not is_stand_in(value)
    assert value not in without_keys(f"401 wrong key {value}.")
