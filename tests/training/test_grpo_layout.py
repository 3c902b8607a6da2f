"""Layouts: those of configs/grpo/layout work, and every mistake about addresses, GPUs and sizes is found in words."""

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safer_steer.errors import UserError
from training.grpo import layout
from training.grpo.config import load_config

THREE, SEVEN, LORA = (f"configs/grpo/qwen2_5_vl_{size}.yaml" for size in ("3b", "7b", "7b_lora"))
SMALLER = ["actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=16"] + [
    f"actor_rollout_ref.{part}.log_prob_micro_batch_size_per_gpu=32" for part in ("ref", "rollout")
]
ELSEWHERE = "safer_steer.tutor.base_url=http://10.0.0.2:8000/v1"


@pytest.fixture(autouse=True)
def no_tutor_in_the_environment(monkeypatch):
    monkeypatch.delenv("TUTOR_API_BASE_URL", raising=False)
    monkeypatch.setattr(layout, "visible_gpus", lambda: 0)


@pytest.mark.parametrize("config", [THREE, SEVEN])
@pytest.mark.parametrize("words", [["layout=one_node"], ["layout=two_nodes", ELSEWHERE], [ELSEWHERE]])
def test_the_layouts_work(config, words):
    loaded = load_config(config, words).config
    lines = layout.lines(loaded.safer_steer, loaded.verl)
    assert lines[1].endswith("of 80"), "no more than there is"


def test_the_papers_configs_ask_for_the_tutors_address(monkeypatch):
    for words in ([], ["layout=two_nodes"]):
        with pytest.raises(UserError, match=r"base_url: the Safety Tutor's address is missing; .*layout=one_node"):
            load_config(THREE, words)
    with pytest.raises(UserError, match="address is missing"):
        load_config(LORA)
    monkeypatch.setenv("TUTOR_API_BASE_URL", "http://10.0.0.2:8000/v1,http://10.0.0.3:8000/v1")
    assert load_config(THREE).config.safer_steer.tutor.urls() == ["http://10.0.0.2:8000/v1", "http://10.0.0.3:8000/v1"]


@pytest.mark.parametrize("address", ["http://127.0.0.1:8000/v1", "service:teacher"])
def test_loopback_is_refused_with_several_nodes(address, monkeypatch):
    said = r"is each node's own loopback, and trainer\.nnodes is 2"
    two = ["trainer.nnodes=2", f"safer_steer.tutor.base_url='{address}'", *SMALLER]
    with pytest.raises(UserError, match=said):
        load_config("configs/grpo/miniature.yaml", two)
    load_config("configs/grpo/miniature.yaml", [*two, "safer_steer.layout.one_machine=true"])
    if address.startswith("http"):
        monkeypatch.setenv("TUTOR_API_BASE_URL", address)
        with pytest.raises(UserError, match=rf"from TUTOR_API_BASE_URL\) {said}"):
            load_config(THREE, ["trainer.nnodes=2"])


@pytest.mark.parametrize(
    ("config", "words", "said"),
    [
        (
            THREE,
            ["safer_steer.tutor.base_url=http://127.0.0.1:8000/v1"],
            "layout.tutor_gpus: the tutor's address .* say",
        ),
        (
            THREE,
            ["layout=one_node", "safer_steer.layout.tutor_gpus=4"],
            r"takes 6 GPUs and the tutor 4, a node has 8 .*layout=two_nodes",
        ),
        (THREE, [ELSEWHERE, "trainer.n_gpus_per_node=16"], "takes 16 GPUs, a node has 8"),
        (THREE, ["layout=one_node", "data.train_batch_size=64"], "64 prompts x 5 .* 320 .* 6 GPUs; .*: 60, 66"),
        (THREE, ["layout=one_node", "actor_rollout_ref.actor.ppo_mini_batch_size=20"], "20 prompts x 5 .*: 18, 24"),
        (
            THREE,
            ["layout=one_node", "actor_rollout_ref.rollout.tensor_model_parallel_size=4"],
            "4 does not divide .* 6",
        ),
        (
            SEVEN,
            [ELSEWHERE, "actor_rollout_ref.rollout.tensor_model_parallel_size=8"],
            "28 attention heads .*: 1, 2, 4, 7",
        ),
        (THREE, [ELSEWHERE, "trainer.n_gpus_per_node=0"], "at least 1, got 0"),
    ],
)
def test_a_layout_that_cannot_work_is_refused(config, words, said):
    with pytest.raises(UserError, match=said):
        load_config(config, words)


@pytest.mark.parametrize(
    ("words", "visible", "said"),
    [
        (["layout=one_node"], 8, "8 GPUs are visible and the trainer takes 6, perhaps those of the tutor"),
        (["layout=one_node"], 6, None),
        (["layout=one_node"], 0, None),
        ([ELSEWHERE], 8, None),
    ],
)
def test_the_trainer_must_not_see_the_tutors_gpus(words, visible, said, monkeypatch):
    monkeypatch.setattr(layout, "visible_gpus", lambda: visible)
    config = load_config(THREE, words).config
    problem = layout.shared_gpus_problem(config.safer_steer, config.verl)
    assert (said or "") in (problem or "")
    assert bool(problem) == bool(said)
    assert any("would stop the run" in line for line in layout.lines(config.safer_steer, config.verl)) == bool(said)


@given(*[st.integers(1, 40)] * 4, st.integers(1, 8))
def test_what_is_accepted_divides_and_what_is_offered_is_accepted(prompts, mini, gpus, rollouts, micro):
    def problems(prompts: int, mini: int) -> list[str]:
        refs = {
            "actor": {"ppo_mini_batch_size": mini, "use_dynamic_bsz": False, "ppo_micro_batch_size_per_gpu": micro},
            "ref": {"log_prob_micro_batch_size_per_gpu": None},
            "rollout": {"n": rollouts, "tensor_model_parallel_size": 1, "log_prob_micro_batch_size_per_gpu": micro},
        }
        trainer = {"n_gpus_per_node": gpus, "nnodes": 1}
        return layout.division_problems(
            {"trainer": trainer, "actor_rollout_ref": refs, "data": {"train_batch_size": prompts}}
        )

    found = problems(prompts, mini)
    fits = all(number * rollouts % gpus == 0 and number * rollouts // gpus % micro == 0 for number in (prompts, mini))
    assert (not found) == fits
    for line in found:
        if "nearest" in line:
            offered = map(int, line.rpartition(": ")[2].split(", "))
            assert all(not any("nearest" in said for said in problems(number, number)) for number in offered)


def test_a_tutor_of_the_run_takes_the_gpus_that_its_server_says(tmp_path):
    serves = "{serves: t, vllm: {checkpoint: Qwen/Qwen3-VL-32B-Instruct, max_model_len: 16384, tensor_parallel: 4}}"
    words = [f"+safer_steer.services.tutor={serves}", "safer_steer.tutor.base_url=service:tutor"]
    with pytest.raises(UserError, match="takes 8 GPUs and the tutor 4, a node has 8"):
        load_config(THREE, words)


def test_a_checkpoints_own_config_counts_before_its_name(tmp_path):
    checkpoint = tmp_path / "qwen2_5_vl_3b"
    checkpoint.mkdir()
    text = {
        "num_hidden_layers": 2,
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_attention_heads": 6,
        "vocab_size": 99,
    }
    (checkpoint / "config.json").write_text(json.dumps({"text_config": text}))
    words = [
        ELSEWHERE,
        f"actor_rollout_ref.model.path={checkpoint}",
        "actor_rollout_ref.rollout.tensor_model_parallel_size=4",
    ]
    with pytest.raises(UserError, match="6 attention heads"):
        load_config(THREE, words)


def test_loading_stays_free_of_engines():
    code = (
        "import sys; from training.grpo.config import load_config; load_config(sys.argv[1], ['layout=one_node']);"
        "print({'torch', 'verl', 'vllm', 'ray'} & sys.modules.keys())"
    )
    shown = subprocess.run([sys.executable, "-c", code, THREE], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"
