"""`safer_steer.attention`: what it becomes for verl, what is refused, and what the plan says."""

from functools import cache

import pytest
from omegaconf import OmegaConf

from safer_steer.errors import UserError
from safer_steer_verl.platform import attention
from training.grpo.config import load_config
from training.grpo.run import engine_config

MODEL = attention.MODEL
ADDRESS = "safer_steer.tutor.base_url=http://10.0.0.2:8000/v1"
GPU, CPU = "configs/grpo/qwen2_5_vl_3b.yaml", "configs/grpo/miniature.yaml"


@pytest.mark.parametrize(
    ("setting", "device", "installed", "path"),
    [
        ("auto", "cpu", True, "padded"),
        ("auto", "cuda", False, "varlen"),
        ("auto", "cuda", True, "flash_attn"),
        ("padded", "cuda", True, "padded"),
        ("varlen", "cpu", False, "varlen needs a GPU"),
        ("flash_attn", "cuda", False, "flash-attn is not installed; use auto, varlen or padded"),
    ],
)
def test_the_path_of_each_setting_or_why_it_cannot_run(setting, device, installed, path, monkeypatch):
    monkeypatch.setattr(attention, "has_flash_attn", lambda: installed)
    if " " in path:
        with pytest.raises(UserError, match=path):
            attention.choose(setting, device)
    else:
        assert attention.choose(setting, device) == path


@cache
def loaded(path):
    return load_config(path, [ADDRESS])


def tree_of(path, **values):
    """A config's tree with some keys set, as a file or the command line would."""
    tree = OmegaConf.create(OmegaConf.to_container(loaded(path).tree, resolve=False))
    for key, value in values.items():
        OmegaConf.update(tree, key, value, force_add=True)
    return tree


@pytest.mark.parametrize(
    ("config", "values", "packed", "kernels"),
    [
        (CPU, {}, False, "sdpa"),
        (GPU, {}, True, "flash_varlen"),
        (GPU, {"safer_steer.attention": "padded"}, False, "sdpa"),
        (GPU, {f"{MODEL}.override_config.max_window_layers": 3}, True, "flash_varlen"),
    ],
)
def test_verl_gets_its_keys_wherever_it_reads_them(config, values, packed, kernels, tmp_path):
    words = [f"++{key}={value}" for key, value in values.items()]
    given = load_config(config, [ADDRESS, *words])
    resolved = engine_config(given, tmp_path, given.config.safer_steer.tutor).actor_rollout_ref
    assert resolved.model.use_remove_padding is resolved.actor.use_remove_padding is packed
    assert resolved.model.override_config.attn_implementation == kernels
    assert resolved.model.override_config.get("max_window_layers") == values.get(
        f"{MODEL}.override_config.max_window_layers"
    )
    assert resolved.model.use_fused_kernels


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"safer_steer.attention": "flash_attn"}, "flash-attn is not installed"),
        ({f"{MODEL}.use_remove_padding": False}, "follow from safer_steer.attention"),
        ({f"{MODEL}.override_config.attn_implementation": "eager"}, "follow from safer_steer.attention"),
        ({f"{MODEL}.use_fused_kernels": False}, "must stay true"),
        ({f"{MODEL}.fused_kernel_options.impl_backend": "triton"}, "must stay true"),
        ({f"{MODEL}.lora_rank": 8, f"{MODEL}.target_modules": ["lm_head"]}, "lm_head cannot have an adapter"),
    ],
)
def test_settings_that_would_go_around_it_are_named(values, said):
    (problem,) = attention.problems(tree_of(GPU, **values))
    assert said in problem
    assert not attention.problems(tree_of(GPU))
