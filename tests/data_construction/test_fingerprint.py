"""What data construction's records depend on, and what its config refuses before anything starts."""

import pytest
from pydantic import ValidationError

from data_construction import history as history_module
from data_construction import stage_two as stage_two_module
from data_construction.pipeline import STAGES
from safer_steer.config import relevant

SOURCE = {"made": {"reader": "jsonl", "path": "seeds.jsonl"}}
LOCAL = {"model": "own", "base_url": "service:own"}


@pytest.fixture
def facts(monkeypatch):
    """A step's facts, as if the steps before it were finished."""
    for module in (stage_two_module, history_module):
        monkeypatch.setattr(module, "require_finished", lambda folder, step: None)
    return lambda config, step: relevant(STAGES[step](config).facts())


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"a" * 100)
    return folder


def test_the_models_of_the_environment_and_of_the_refusal_role_are_facts(make_config, facts, monkeypatch):
    config = make_config(SOURCE, quality={"refusal_role": "blue"})
    before = facts(config, "stage1")
    monkeypatch.setenv("BLUE_MODEL", "another")
    after = facts(config, "stage1")
    assert after["roles"]["blue"]["model"] == "another" != before["roles"]["blue"]["model"]
    assert facts(config, "stage2")["roles"].keys() == {"red", "blue", "evaluator"}


def test_a_target_trained_anew_is_another_configuration(make_config, facts, checkpoint):
    vllm = {"checkpoint": str(checkpoint), "max_model_len": 512}
    roles = make_config(SOURCE).model_dump()["roles"] | {"target": LOCAL}
    config = make_config(SOURCE, roles=roles, services={"own": {"serves": "own", "vllm": vllm}})
    before = facts(config, "stage1")
    (checkpoint / "model.safetensors").write_bytes(b"b" * 100)
    after = facts(config, "stage1")
    assert before["weights"].keys() == {"own"}
    assert before["weights"] != after["weights"]
    assert facts(config, "stage2")["weights"] == {}


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        ({"vllm": {"checkpoint": "org/a"}}, {"vllm": {"checkpoint": "org/b"}}, False),
        ({"vllm": {}}, {"vllm": {"max_model_len": 1024}}, False),
        ({"vllm": {}}, {"vllm": {"max_pixels": 3136}}, False),
        ({"vllm": {}}, {"vllm": {"arguments": ["--quantization", "fp8"]}}, False),
        ({"vllm": {}}, {"vllm": {"arguments": ["--enable-prefix-caching"], "max_num_seqs": 2}}, True),
        ({"command": ["python", "a.py"]}, {"command": ["python", "b.py"]}, False),
        ({"command": ["python"]}, {"command": ["python"], "env": {"A": "1"}, "startup_s": 5}, True),
    ],
)
def test_the_model_that_a_service_runs_is_a_fact_and_its_speed_is_none(make_config, facts, before, after, same):
    def of(service):
        if "vllm" in service:
            service = {"vllm": {"checkpoint": "org/a", "max_model_len": 512} | service["vllm"]}
        roles = make_config(SOURCE).model_dump()["roles"] | {"target": LOCAL}
        return facts(make_config(SOURCE, roles=roles, services={"own": {"serves": "own"} | service}), "stage1")

    assert (of(before) == of(after)) == same
    assert "service own" in of(before)


def test_an_unknown_service_is_found_at_once_unless_the_environment_names_another_address(make_config, monkeypatch):
    roles = make_config(SOURCE).model_dump()["roles"] | {"red": LOCAL}
    with pytest.raises(ValidationError, match="service:own: no such service; configured: none"):
        make_config(SOURCE, roles=roles)
    monkeypatch.setenv("RED_API_BASE_URL", "http://127.0.0.1:9/v1")
    assert make_config(SOURCE, roles=roles)
