"""The shipped paper-scale configs hand each other their files: what one stage writes is what the next one reads."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from safer_steer.config import with_base

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def values(name: str) -> dict:
    """The file's own values, interpolations resolved."""
    raw = with_base(CONFIGS / f"{name}.yaml")
    raw.pop("defaults", None)
    found = OmegaConf.to_container(
        OmegaConf.create({"output": "${root}/grpo"} | OmegaConf.to_container(raw)), resolve=True
    )
    assert isinstance(found, dict)
    return found


DATA = f"{values('data_construction/default')['root']}/data"


@pytest.mark.parametrize("name", ["qwen2_5_vl_3b", "qwen2_5_vl_7b", "qwen3_vl_2b", "qwen3_vl_4b", "qwen3_vl_8b"])
def test_sft_reads_what_data_construction_writes_and_grpo_begins_in_its_folder(name):
    sft, grpo = values(f"sft/{name}"), values(f"grpo/{name}")
    assert sft["data"] == f"{DATA}/steer_sft.jsonl"
    assert grpo["root"] == sft["root"]
    assert grpo.get("safer_steer", {}).get("base_model") == sft["model"]


@pytest.mark.parametrize("name", ["default", "steer_rl"])
def test_exports_read_what_data_construction_writes(name):
    assert Path(values(f"exports/{name}")["data"]).parent == Path(DATA)


def test_grpo_starts_from_sft_on_the_rows_of_data_construction():
    grpo, sft = values("grpo/qwen2_5_vl_3b"), values("sft/qwen2_5_vl_3b")
    assert grpo["actor_rollout_ref"]["model"]["path"] == f"{sft['output']}/checkpoint"
    assert grpo["safer_steer"]["data"]["source"] == f"{DATA}/steer_rl.jsonl"
    assert grpo["safer_steer"]["data"]["max_pixels"] == sft["images"]["max_pixels"]


def test_every_stage_shows_pictures_of_the_same_size():
    """The base model too: nothing in an evaluation's models differs from its `max_pixels`."""
    for names in (["qwen2_5_vl_3b", "default", "steer_bench"], ["miniature", None, "miniature"]):
        found = {values(f"sft/{names[0]}")["images"]["max_pixels"]}
        found |= {values(f"grpo/{names[0]}")["safer_steer"]["data"]["max_pixels"]}
        found |= {values(f"exports/{names[1]}")["max_pixels"]} if names[1] else set()
        found |= {values(f"evaluation/{names[2]}")["max_pixels"]}
        assert len(found) == 1, names
        assert not any("max_pixels" in model for model in values(f"evaluation/{names[2]}")["models"].values())


@pytest.mark.parametrize("name", ["steer_bench", "single_turn"])
def test_evaluation_takes_the_models_that_training_writes(name):
    models = values(f"evaluation/{name}")["models"]
    assert models["sft"]["checkpoint"] == f"{values('sft/qwen2_5_vl_3b')['output']}/checkpoint"
    assert models["sft_grpo"]["checkpoint"] == f"{values('grpo/qwen2_5_vl_3b')['output']}/checkpoint"
    assert values("evaluation/steer_bench")["benchmarks"] == [f"{DATA}/steer_bench/*.jsonl"]
