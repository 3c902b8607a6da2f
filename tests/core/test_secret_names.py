"""Which names of the environment hold credentials."""

import pytest

from safer_steer.secrets import refuse_credentials, without_keys


@pytest.mark.parametrize(
    "name", ["AWS_SECRET_ACCESS_KEY", "HUGGING_FACE_HUB_TOKEN", "GITHUB_TOKEN", "AZURE_OPENAI_KEY", "JUDGE_API_KEY"]
)
def test_known_names_are_struck_out(name, monkeypatch):
    monkeypatch.setenv(name, "not-for-anyone-else")
    assert without_keys("it was not-for-anyone-else") == f"it was [{name}]"


def test_token_counts_are_no_credentials():
    assert refuse_credentials({"max_token": 5, "eos_token": "<end>"}) == {"max_token": 5, "eos_token": "<end>"}
