"""Stage III configs: every file composes and validates; all mistakes are reported at once, in words."""

from pathlib import Path

import pytest

from safer_steer.errors import UserError
from training.grpo.config import load_config

CONFIGS = sorted(Path("configs/grpo").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_loads(path):
    loaded = load_config(path)
    verl = loaded.config.verl
    assert verl["algorithm"]["adv_estimator"] == "safer_steer_grpo"
    assert verl["algorithm"]["norm_adv_by_std_in_grpo"] is False
    assert {"model", "optimizer", "extra", "hf_model"} <= set(
        verl["actor_rollout_ref"]["actor"]["checkpoint"]["save_contents"]
    )


def test_the_papers_values():
    verl = load_config("configs/grpo/qwen2_5_vl_7b.yaml").config.verl
    actor, rollout = verl["actor_rollout_ref"]["actor"], verl["actor_rollout_ref"]["rollout"]
    assert (float(actor["optim"]["lr"]), float(actor["optim"]["weight_decay"])) == (1e-5, 1e-2)
    assert (verl["data"]["train_batch_size"], rollout["n"], actor["kl_loss_coef"]) == (64, 5, 0.1)
    assert verl["trainer"]["total_epochs"] == 1
    assert verl["data"]["max_prompt_length"] + verl["data"]["max_response_length"] <= 10240


def test_overrides_reach_verl_and_our_section():
    config = load_config(
        "configs/grpo/miniature.yaml",
        [
            "actor_rollout_ref.actor.optim.lr=1e-3",
            "safer_steer.tcsr.alpha=0.5",
            "+actor_rollout_ref.model.override_config.x=1",
        ],
    ).config
    assert float(config.verl["actor_rollout_ref"]["actor"]["optim"]["lr"]) == 1e-3
    assert config.safer_steer.tcsr.alpha == 0.5


def test_a_key_of_our_section_that_no_yaml_lists_can_be_set():
    config = load_config("configs/grpo/miniature.yaml", ["safer_steer.tutor.max_retries=1"]).config
    assert config.safer_steer.tutor.max_retries == 1
    with pytest.raises(UserError, match=r"safer_steer\.bogus: unknown key; allowed here"):
        load_config("configs/grpo/miniature.yaml", ["safer_steer.bogus=1"])


def test_all_unknown_overrides_are_named_at_once():
    with pytest.raises(UserError, match=r"2 problem\(s\).*trainer.sav_freq.*datum"):
        load_config("configs/grpo/miniature.yaml", ["trainer.sav_freq=1", "datum.x=2"])


@pytest.mark.parametrize(
    ("overrides", "word"),
    [
        (["safer_steer.tcsr.alpha=2"], "alpha"),
        (["safer_steer.reward.safety=0.9"], "sum to 1"),
        (["data.train_batch_size=15"], "does not divide"),
        (["actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=24"], "does not divide a rank's 32"),
        (["actor_rollout_ref.rollout.n=1"], "at least 2"),
        (["actor_rollout_ref.rollout.max_model_len=100"], "below prompt \\+ response"),
        (["nonsense"], "key=value"),
        (["safer_steer.max_unscored_rate=1.5"], "max_unscored_rate"),
    ],
)
def test_values_that_do_not_fit_are_refused(overrides, word):
    with pytest.raises(UserError, match=word):
        load_config("configs/grpo/miniature.yaml", overrides)


def test_unknown_keys_of_a_file_are_named_at_once(tmp_path):
    text = (
        Path("configs/grpo/miniature.yaml")
        .read_text()
        .replace("save_freq:", "sav_freq:")
        .replace("  ref:\n", "  reff:\n")
    )
    (tmp_path / "typo.yaml").write_text(text)
    with pytest.raises(UserError, match=r"2 problem\(s\)") as error:
        load_config(tmp_path / "typo.yaml")
    assert "trainer.sav_freq: unknown key" in str(error.value)
    assert "actor_rollout_ref.reff: unknown key" in str(error.value)


def test_a_missing_file_or_value_is_one_line(tmp_path):
    with pytest.raises(UserError, match="config file not found"):
        load_config("configs/grpo/none.yaml")
    (tmp_path / "bare.yaml").write_text("defaults: [safer_steer_cpu, _self_]\n")
    with pytest.raises(UserError, match=r"root: missing.*safer_steer\.tutor: missing"):
        load_config(tmp_path / "bare.yaml")
