"""Stage III configs: every file composes and validates; all mistakes are reported at once, in words."""

from functools import cache
from pathlib import Path

import pytest

from data_construction.config import DataConfig
from evaluation.config import EvaluationConfig
from safer_steer.answer_format import AnswerFormat
from safer_steer.config import load_config as load_sft
from safer_steer.errors import UserError
from safer_steer_verl.verl_check import dry_check
from training.ablations import ABLATIONS, expand
from training.grpo.config import load_config
from training.sft.config import SftConfig

CONFIGS = sorted(Path("configs/grpo").glob("*.yaml"))


@pytest.fixture
def tutor_elsewhere(monkeypatch):
    """The paper's configs leave the tutor's address open."""
    monkeypatch.setenv("TUTOR_API_BASE_URL", "http://tutor.example:8000/v1")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_loads(path, tutor_elsewhere):
    loaded = load_config(path)
    verl = loaded.config.verl
    assert verl["algorithm"]["adv_estimator"] == "safer_steer_trajectory"
    assert verl["algorithm"]["norm_adv_by_std_in_grpo"] is path.stem.endswith("_released")
    assert {"model", "optimizer", "extra", "hf_model"} <= set(
        verl["actor_rollout_ref"]["actor"]["checkpoint"]["save_contents"]
    )


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_is_one_word_and_changes_one_thing(name):
    full, ablated = full_miniature(), load_config("configs/grpo/miniature.yaml", [f"ablation={name}"]).config
    assert ablated.output == f"{full.output}_{name}"
    changed = {
        "no_tcsr": ablated.safer_steer.tcsr.rule == "raw",
        "no_feedback_dynamics": not ablated.safer_steer.feedback_dynamics,
        "no_bootstrapping": ablated.verl["actor_rollout_ref"]["model"]["path"] == full.safer_steer.base_model,
        "single_turn": ablated.safer_steer.data.turns == "last",
    }
    assert [key for key, value in changed.items() if value] == [name]


@pytest.mark.parametrize("name", ["qwen2_5_vl_3b", "qwen2_5_vl_7b", "miniature"])
def test_the_single_turn_cell_starts_from_single_turn_sft(name, tutor_elsewhere):
    words = ["ablation=single_turn"]
    sft = load_sft(SftConfig, f"configs/sft/{name}.yaml", expand("sft", words))
    full = load_sft(SftConfig, f"configs/sft/{name}.yaml")
    grpo = load_config(f"configs/grpo/{name}.yaml", words).config
    assert grpo.verl["actor_rollout_ref"]["model"]["path"] == f"{sft.output}/checkpoint"
    assert grpo.safer_steer.data.turns == sft.turns == "last"
    assert sft.output != full.output
    assert sft.model_copy(update={"turns": "all", "output": full.output}) == full, "and differs in nothing else"


def test_each_form_of_tcsr_has_its_partner(tutor_elsewhere):
    for name, words, rule in (
        ("qwen2_5_vl_3b", [], "raw"),
        ("qwen2_5_vl_3b_released", [], "mean"),
        ("miniature", ["safer_steer.tcsr.rule=released"], "mean"),
    ):
        found = load_config(f"configs/grpo/{name}.yaml", ["ablation=no_tcsr", *words]).config
        assert found.safer_steer.tcsr.rule == rule
    with pytest.raises(UserError, match="last is no form of TCSR; give paper or additive or released"):
        load_config("configs/grpo/miniature.yaml", ["ablation=no_tcsr", "safer_steer.tcsr.rule=last"])


def test_a_checkpoint_of_another_answer_format_is_refused(tmp_path, tutor_elsewhere):
    AnswerFormat(tags=["thinking", "answer"]).write(tmp_path)
    model = f"actor_rollout_ref.model.path={tmp_path}"
    with pytest.raises(UserError, match="was trained with another one: <thinking>…</thinking><answer>"):
        load_config("configs/grpo/miniature.yaml", [model])
    assert load_config("configs/grpo/miniature.yaml", [model, "+safer_steer.answer_format.tags=[thinking,answer]"])
    with pytest.raises(UserError, match=r"the system prompt asks for the tags thinking, answer, and not for think"):
        load_config("configs/grpo/qwen2_5_vl_3b.yaml", ["safer_steer.answer_format.tags=[think,answer]"])
    laid = load_config("configs/grpo/qwen2_5_vl_3b.yaml", ["safer_steer.answer_format.system=Think."])
    assert laid.config.safer_steer.answer_format == AnswerFormat(system="Think.", tags=["thinking", "answer"])
    with pytest.raises(UserError, match=r"reward.format.tags .* are not those of answer_format"):
        load_config("configs/grpo/miniature.yaml", ["safer_steer.reward.format.bonus=1.0"])


def test_released_configs_do_what_the_released_code_does(tutor_elsewhere):
    config = load_config("configs/grpo/qwen2_5_vl_3b_released.yaml").config
    ours, actor = config.safer_steer, config.verl["actor_rollout_ref"]["actor"]
    assert (ours.tutor.temperature, ours.tutor.max_tokens, ours.tcsr.rule) == (0.0, 12288, "released")
    assert actor["loss_agg_mode"] == "token-mean"
    sft = load_sft(SftConfig, "configs/sft/qwen2_5_vl_3b_released.yaml")
    assert config.verl["actor_rollout_ref"]["model"]["path"] == f"{sft.output}/checkpoint"
    data = load_sft(DataConfig, "configs/data_construction/default.yaml")
    assert data.bootstrap.answer_format == sft.answer_format == ours.answer_format != AnswerFormat()
    evaluated = load_sft(EvaluationConfig, "configs/evaluation/steer_bench_released.yaml")
    assert evaluated.answer_format == sft.answer_format


def test_sft_has_no_part_in_the_ablations_of_grpo():
    with pytest.raises(UserError, match="no_tcsr changes nothing of sft; sft knows: single_turn"):
        expand("sft", ["ablation=no_tcsr"])


@cache
def full_miniature():
    return load_config("configs/grpo/miniature.yaml").config


def test_verls_own_checks_run_without_a_gpu(tutor_elsewhere, monkeypatch):
    """What a dry run does last: the same functions that a run calls in its TaskRunner, on every config."""
    for name in ("VERL_PLATFORM", "VERL_USE_EXTERNAL_MODULES"):  # set for the whole process; taken back afterwards
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    dry_check(load_config("configs/grpo/qwen2_5_vl_7b_lora.yaml").tree)
    dry_check(load_config("configs/grpo/qwen2_5_vl_3b.yaml", ["actor_rollout_ref.rollout.name=sglang"]).tree)
    several = ["trainer.nnodes=4", "+ray_kwargs.ray_init.address=auto", "data.train_batch_size=128"]
    dry_check(load_config("configs/grpo/qwen2_5_vl_7b.yaml", several).tree)
    with pytest.raises(UserError, match=r"verl refuses the config: .*loss_agg_mode"):
        dry_check(load_config("configs/grpo/miniature.yaml", ["actor_rollout_ref.actor.loss_agg_mode=most"]).tree)


def test_overrides_reach_verl_and_our_section():
    config = load_config(
        "configs/grpo/miniature.yaml",
        [
            "actor_rollout_ref.actor.optim.lr=1e-3",
            "safer_steer.tcsr.alpha=0.5",
            "safer_steer.credit=turn",
            "safer_steer.tutor.max_retries=1",  # no YAML lists it
            "+actor_rollout_ref.model.override_config.x=1",
            "ablation=no_feedback_dynamics",
            "output=here",  # what is given next to an ablation wins
        ],
    ).config
    assert float(config.verl["actor_rollout_ref"]["actor"]["optim"]["lr"]) == 1e-3
    assert config.verl["algorithm"]["adv_estimator"] == "safer_steer_turn"
    assert (config.safer_steer.tcsr.alpha, config.safer_steer.tutor.max_retries) == (0.5, 1)
    assert (config.output, config.safer_steer.feedback_dynamics) == ("here", False)


@pytest.mark.parametrize(
    ("overrides", "word"),
    [
        (["trainer.sav_freq=1", "datum.x=2"], r"2 problem\(s\).*trainer.sav_freq: unknown key.*datum: unknown key"),
        (["safer_steer.bogus=1"], r"safer_steer\.bogus: unknown key; allowed here"),
        (["data.train_batch_size.x=1"], r"train_batch_size"),
        (["safer_steer.tcsr.alpha=2"], "alpha"),
        (["safer_steer.reward.safety=0.9"], "sum to 1"),
        (["data.train_batch_size=15"], "does not divide"),
        (["actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=24"], "does not divide a rank's 32"),
        (["actor_rollout_ref.rollout.n=1"], "at least 2"),
        (["trainer.max_actor_ckpt_to_keep=1"], "max_actor_ckpt_to_keep: 1; at least 2"),
        (["actor_rollout_ref.rollout.max_model_len=100"], "below prompt \\+ response"),
        (["nonsense"], "key=value"),
        (["safer_steer.credit=turn", "safer_steer.tcsr.rule=released"], "needs a value for every turn"),
        (["safer_steer.tutor.concurrency=1", "actor_rollout_ref.rollout.agent.num_workers=2"], "each worker needs"),
        (["trainer.test_freq=5"], "safer_steer.data.validation"),
        (
            ["trainer.default_local_dir=/mnt/x"],
            "default_local_dir: /mnt/x; only outputs/quickstart/grpo/checkpoints is",
        ),
        (["trainer.resume_mode=disable"], "resume_mode: disable; only auto is allowed; .*give another output"),
        (
            ["data.train_max_samples=64"],
            "train_max_samples: 64; only -1 is .*smaller safer_steer.data.source, or trainer",
        ),
        (["ablation=no_bootstrapping", "safer_steer.base_model=null"], "needs safer_steer.base_model"),
        (["safer_steer.max_unscored_rate=1.5"], "max_unscored_rate"),
        (["safer_steer.tutor.base_url=service:techer"], "service:techer: no such service; configured: teacher"),
    ],
)
def test_values_that_do_not_fit_are_refused(overrides, word):
    with pytest.raises(UserError, match=word):
        load_config("configs/grpo/miniature.yaml", overrides)


def test_a_missing_file_or_value_is_one_line(tmp_path):
    with pytest.raises(UserError, match="config file not found"):
        load_config("configs/grpo/none.yaml")
    (tmp_path / "bare.yaml").write_text("defaults: [safer_steer_cpu, _self_]\n")
    with pytest.raises(UserError, match=r"root: missing.*safer_steer\.tutor: missing"):
        load_config(tmp_path / "bare.yaml")


def test_the_tutor_of_the_environment_is_the_configs(monkeypatch):
    monkeypatch.setenv("TUTOR_MODEL", "other-tutor")
    monkeypatch.setenv("TUTOR_API_BASE_URL", "http://10.0.0.2:8000/v1, http://10.0.0.3:8000/v1")
    tutor = load_config("configs/grpo/qwen2_5_vl_3b.yaml").config.safer_steer.tutor
    assert tutor.model == "other-tutor"
    assert tutor.base_url == ["http://10.0.0.2:8000/v1", "http://10.0.0.3:8000/v1"]
