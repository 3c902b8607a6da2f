"""Launching Stage III without an engine: data, checkpoints, leftovers of a killed run, words on failure."""

import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from omegaconf import OmegaConf
from PIL import Image

from safer_steer.deaths import MemoryLog
from safer_steer.dialogue import Dialogue, Turn
from safer_steer.errors import UserError
from safer_steer.store import read_jsonl, write_jsonl
from safer_steer_verl.beats import FOLDER
from safer_steer_verl.local_ray import ray_options
from safer_steer_verl.platform import GROUP_TIMEOUT
from training.grpo import checkpoints, curve, failure, launch, processes
from training.grpo.config import load_config
from training.grpo.plan import tutor_load
from training.grpo.run import _set_steps

NUMBERS = itertools.count()


def checkpoint(folder: Path, step: int, whole: bool = True) -> None:
    actor = folder / f"global_step_{step}" / "actor"
    (actor / "huggingface").mkdir(parents=True)
    (actor / "model_world_size_1_rank_0.pt").write_text("x")
    (actor / "huggingface" / "model.safetensors").write_text(f"weights of {step}")
    if whole:
        (actor.parent / "data.pt").write_text("x")


def rows(folder: Path, *steps: int) -> Path:
    path = folder / "metrics.jsonl"
    path.write_text("".join(f'{{"step": {step}}}\n' for step in steps))
    return path


def test_the_last_whole_checkpoint_is_found(tmp_path):
    assert checkpoints.last_step(tmp_path / "none", tmp_path / "metrics.jsonl") == 0
    checkpoint(tmp_path, 2)
    checkpoint(tmp_path, 4)
    (tmp_path / checkpoints.TRACKER).write_text("4")
    assert checkpoints.last_step(tmp_path, rows(tmp_path, 1, 2, 3, 4)) == 4


@pytest.mark.parametrize("tracker", ["", "4", "x"])
def test_a_torn_save_falls_back_to_the_step_before(tmp_path, tracker):
    checkpoint(tmp_path, 2)
    checkpoint(tmp_path, 4, whole=False)
    (tmp_path / checkpoints.TRACKER).write_text(tracker)
    assert checkpoints.last_step(tmp_path, rows(tmp_path, 1, 2, 3)) == 2
    assert (tmp_path / checkpoints.TRACKER).read_text() == "2"


@pytest.mark.parametrize("tracker", ["", "4"])
def test_a_step_saved_without_its_rows_is_done_again(tmp_path, tracker, capsys):
    checkpoint(tmp_path, 2)
    checkpoint(tmp_path, 4)
    (tmp_path / checkpoints.TRACKER).write_text(tracker)
    assert checkpoints.last_step(tmp_path, rows(tmp_path, 1, 2, 3)) == 2
    assert "before the rows of step 4 were written; goes on after step 2" in capsys.readouterr().err
    assert checkpoints.last_step(tmp_path, rows(tmp_path, 1, 2)) == 2  # killed again, at step 3


def test_a_first_checkpoint_without_its_rows_begins_anew(tmp_path):
    checkpoint(tmp_path, 3)
    (tmp_path / checkpoints.TRACKER).write_text("3")
    assert checkpoints.last_step(tmp_path, rows(tmp_path, 1, 2)) == 0
    assert checkpoints.last_step(tmp_path, rows(tmp_path, 1)) == 0  # killed again, at step 2
    assert verl_would_load(tmp_path) is None


def test_lost_rows_of_finished_steps_are_refused_and_nothing_changes(tmp_path):
    checkpoint(tmp_path, 2)
    checkpoint(tmp_path, 4)
    (tmp_path / checkpoints.TRACKER).write_text("4")
    with pytest.raises(UserError, match=r"no row of step 3, but .* checkpoint of step 4; put the file back"):
        checkpoints.last_step(tmp_path, tmp_path / "metrics.jsonl")
    assert (tmp_path / checkpoints.TRACKER).read_text() == "4"


def test_rows_of_steps_that_will_be_done_again_are_taken_out(tmp_path):
    rows(tmp_path, 0, 1, 2, 3)
    write_jsonl(tmp_path / "trajectories.jsonl", [{"id": str(n), "meta": {"step": n // 2}} for n in range(2, 8)])
    checkpoints.rewind(tmp_path, 2)
    assert [row["step"] for row in read_jsonl(tmp_path / "metrics.jsonl")] == [0, 1, 2]
    assert [row["meta"]["step"] for row in read_jsonl(tmp_path / "trajectories.jsonl")] == [1, 1, 2, 2]
    checkpoints.rewind(tmp_path, 0)
    assert (tmp_path / "metrics.jsonl").read_text() == "", "the validation before training is done again too"


def verl_would_load(folder: Path) -> str | None:
    from verl.utils.checkpoint.checkpoint_manager import find_latest_ckpt_path

    return find_latest_ckpt_path(str(folder))


def test_only_processes_of_this_run_are_ended(tmp_path):
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    ours = subprocess.Popen(command, env={**os.environ, processes.MARK: processes.mark_of(tmp_path / "a")})
    other = subprocess.Popen(command, env={**os.environ, processes.MARK: processes.mark_of(tmp_path / "b")})
    try:
        deadline = time.monotonic() + 20
        while not processes.run_processes(tmp_path / "a") and time.monotonic() < deadline:
            time.sleep(0.05)
        assert [p.pid for p in processes.run_processes(tmp_path / "a")] == [ours.pid]
        assert processes.end_run_processes(tmp_path / "a") == 1
        assert not psutil.pid_exists(ours.pid)
        assert other.poll() is None
    finally:
        for process in (ours, other):
            process.kill()
            process.wait()


def test_rays_folder_is_short_and_the_runs_own(tmp_path):
    deep = tmp_path / ("x" * 80)
    assert len(str(processes.ray_folder(deep))) < 60
    assert processes.ray_folder(deep) != processes.ray_folder(tmp_path)


def test_rays_folder_is_this_users_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    place = processes.ray_folder(tmp_path)
    (place / "left").mkdir(parents=True)
    processes.make_ray_folder(tmp_path)
    assert list(place.iterdir()) == []
    assert place.stat().st_mode & 0o777 == 0o700
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)  # another user's, in a sticky folder
    with pytest.raises(UserError, match="another user's"):
        processes.make_ray_folder(tmp_path)


LOG = """
\x1b[36m(AgentLoopWorkerTQ pid=12)\x1b[0m ERROR:Error in _run_prompt for uid=7
(AgentLoopWorkerTQ pid=12) Traceback (most recent call last):
(AgentLoopWorkerTQ pid=12) safer_steer_verl.dataset.RowError: dialogue d: forged
ray.exceptions.RayTaskError(ValueError): ray::TaskRunner.run() (pid=3)
ValueError: Batch contains no materializable trajectories
"""


def test_the_useful_lines_of_a_log():
    assert failure.useful_lines(LOG) == [
        "ERROR:Error in _run_prompt for uid=7",
        "safer_steer_verl.dataset.RowError: dialogue d: forged",
    ]


def test_a_failure_is_one_line(tmp_path):
    log, reason, memory = tmp_path / "verl.log", tmp_path / "failure.json", MemoryLog()
    log.write_text(LOG)
    assert "forged" in failure.failure_message(1, reason, log, memory)
    assert "full log" in failure.failure_message(1, reason, log, memory)
    reason.write_text(json.dumps({"kind": "user", "message": "step 3: 40% of 64 trajectories have no score"}))
    assert failure.failure_message(2, reason, log, memory) == "step 3: 40% of 64 trajectories have no score"


def test_the_tutors_usage_is_the_sum_of_the_workers_totals(tmp_path):
    totals = [{"a": 3}, {"a": 5, "b": 2}, {"c": 1}]  # worker c: after a resume
    rows = [{"tutor_usage": {w: {"calls": n, "usd": 0.5} for w, n in row.items()}} for row in totals]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    usage = launch.tutor_usage(tmp_path / "metrics.jsonl")
    assert (usage["calls"], usage["usd"], usage["tokens_in"]) == (8, 1.5, 0)


def test_the_engines_config_has_absolute_paths_and_no_interpolation(tmp_path):
    loaded = load_config("configs/grpo/miniature.yaml", [f"root={tmp_path}/run"])
    (tmp_path / "run" / "sft" / "checkpoint").mkdir(parents=True)
    tutor = {"model": "m", "base_url": "http://127.0.0.1:1/v1"}
    config = launch.resolve(loaded.tree, tmp_path / "run" / "grpo", tutor)
    assert config.safer_steer.tutor.base_url == "http://127.0.0.1:1/v1"
    assert config.output == str((tmp_path / "run" / "grpo").resolve())
    assert config.trainer.default_local_dir == str((tmp_path / "run" / "grpo" / "checkpoints").resolve())
    assert config.ray_kwargs.ray_init._temp_dir == str(processes.ray_folder(tmp_path / "run" / "grpo"))
    env = launch.environment(config, tmp_path / "run" / "grpo")
    assert env["VERL_PLATFORM"] == "cpu"
    assert env["HF_HUB_OFFLINE"] == "1"
    assert env[processes.MARK] == processes.mark_of(tmp_path / "run" / "grpo")


TUTOR = "safer_steer.tutor.base_url=http://tutor.example:8000/v1"


def test_a_gpu_run_without_services_gets_as_far_as_the_missing_gpu(tmp_path, monkeypatch):
    """Nothing but the launcher makes its folders: neither the CPU build's metadata nor a service's log is there."""
    monkeypatch.setattr(launch, "metadata_folder", lambda _: None)
    loaded = load_config("configs/grpo/qwen2_5_vl_3b.yaml", ["layout=one_node", f"root={tmp_path}/run"])
    config = launch.resolve(loaded.tree, tmp_path / "grpo", {"model": "m", "base_url": "http://127.0.0.1:1/v1"})
    env = launch.environment(config, tmp_path / "grpo") | {"CUDA_VISIBLE_DEVICES": ""}
    assert (env[GROUP_TIMEOUT], "VERL_PLATFORM" in env) == ("3600", "VERL_PLATFORM" in os.environ)
    for name in (GROUP_TIMEOUT, FOLDER):
        monkeypatch.setenv(name, env[name])
    for_workers = ray_options(config)["runtime_env"]["env_vars"]  # of every node
    assert (for_workers[GROUP_TIMEOUT], for_workers[FOLDER]) == ("3600", str(tmp_path / "grpo" / "log" / "beats"))
    (tmp_path / "grpo").mkdir()
    (tmp_path / "grpo" / "config.yaml").write_text(OmegaConf.to_yaml(config))
    with pytest.raises(UserError, match="no GPU is visible"):
        launch.train(tmp_path / "grpo" / "config.yaml", env, steps=1, done=0, stall_s=600)
    assert (tmp_path / "grpo" / "log" / "verl.log").is_file()


@pytest.mark.parametrize("path", sorted(Path("configs/grpo").glob("*.yaml")), ids=lambda path: path.stem)
def test_economies_of_a_cpu_stay_there_and_no_checkpoint_changes_the_sampling(path, tmp_path):
    tree = load_config(path, [f"root={tmp_path}", TUTOR]).tree
    assert tree.actor_rollout_ref.rollout.engine_kwargs.vllm.generation_config == "vllm"
    assert tree.actor_rollout_ref.nccl_timeout == 3600
    units = tree.transfer_queue.backend.SimpleStorage.num_data_storage_units
    assert (units == 1) == (tree.trainer.device == "cpu")
    resolved = launch.resolve(tree, tmp_path / "grpo", {"model": "m", "base_url": "http://127.0.0.1:1/v1"})
    refs, length = resolved.actor_rollout_ref, tree.data.max_prompt_length + tree.data.max_response_length
    parts = (refs.actor.use_dynamic_bsz, refs.rollout.log_prob_use_dynamic_bsz, refs.ref.log_prob_use_dynamic_bsz)
    assert set(parts) == {tree.trainer.device == "cuda"}, "packed rows are cut by tokens, padded ones by rows"
    if tree.trainer.device == "cuda":
        assert refs.actor.ppo_max_token_len_per_gpu == refs.actor.ppo_micro_batch_size_per_gpu * length
        assert refs.ref.log_prob_max_token_len_per_gpu == refs.ref.log_prob_micro_batch_size_per_gpu * length
    verls = {"dataloader_num_workers": tree.data, "logger": tree.trainer}
    if tree.trainer.device == "cuda":
        assert units >= 8
        assert all(section[name] for name, section in verls.items())


@pytest.mark.parametrize(
    ("prompts", "asked", "epochs", "wanted"),
    [
        (4, None, 2, (4, 2)),  # case 18: 4 rows, batch 2, 2 epochs
        (5, None, 1, (2, 1)),
        (4, 5, 1, (5, 3)),  # verl would end after one epoch, and say nothing
        (2, 1, 7, (1, 1)),
    ],
)
def test_the_run_has_epochs_enough_for_its_steps(prompts, asked, epochs, wanted):
    trainer = {"total_training_steps": asked, "total_epochs": epochs, "save_freq": 1}
    config = OmegaConf.create({"data": {"train_batch_size": 2}, "trainer": trainer})
    assert (_set_steps(config, prompts), config.trainer.total_epochs) == wanted
    assert config.trainer.total_training_steps == wanted[0]


def test_fewer_prompts_than_a_batch_are_refused():
    config = OmegaConf.create({"data": {"train_batch_size": 8}})
    with pytest.raises(UserError, match=r"3 usable prompts are fewer than data.train_batch_size 8"):
        _set_steps(config, 3)


def test_the_console_line_of_a_step_names_what_there_is():
    row = {"step": 3, "timing_s/step": 9.94, "tutor/turn_reward_mean": 0.5, "tutor/fully_safe_share": 0.25}
    assert launch.step_line(row) == "step 3 (9.9 s): reward 0.500, fully safe 25%"
    assert "held-out reward 0.700" in launch.step_line(row | {"val/tutor/turn_reward_mean": 0.7})
    assert "KL" not in launch.step_line(row | {"actor/kl_loss": None})


def test_the_curve_is_drawn_from_the_metrics_and_a_gap_in_them_is_no_matter(tmp_path):
    with pytest.raises(UserError):
        curve.draw_run(tmp_path)
    rows = [
        {"step": 0, "val/tutor/turn_reward_mean": 0.3},
        {"step": 1, "tutor/turn_reward_mean": 0.3, "rollout/masked_rate": 0.0},
        {"step": 2, "tutor/turn_reward_mean": None},
        {"step": 3, "tutor/turn_reward_mean": 0.6, "val/tutor/turn_reward_mean": 0.5},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with Image.open(curve.draw_run(tmp_path)) as picture:
        assert picture.format == "PNG"
        assert picture.width > 600


def test_dry_run_prints_the_plan_and_touches_nothing(tmp_path):
    command = [
        sys.executable,
        "-m",
        "training.grpo.run",
        "configs/grpo/miniature.yaml",
        f"root={tmp_path}/run",
        "--dry-run",
    ]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert "20 steps of 16 prompts x 4 rollouts" in answer.stdout
    assert "10 turns of 32 tokens and their questions are 670 tokens, data.max_response_length is 288" in answer.stdout
    assert "sampling: temperature 1.0, top_p 1, top_k -1, repetition penalty 1.0" in answer.stdout
    assert "calls of tutor" in answer.stdout
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("overrides", "word"),
    [([], "run the stage that writes it"), (["trainer.bogus=1", "x=2"], "2 problem(s)")],
)
def test_mistakes_end_in_one_line_and_code_2(tmp_path, overrides, word):
    command = [
        sys.executable,
        "-m",
        "training.grpo.run",
        "configs/grpo/miniature.yaml",
        f"root={tmp_path}/run",
        *overrides,
    ]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 2
    assert answer.stderr.startswith("error: ")
    assert word in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1


def dialogue_of(turns: int) -> Dialogue:
    asked = [Turn(user="What colour is it?", images=[0] if number == 0 else []) for number in range(turns)]
    row = {"id": f"d{turns}-{next(NUMBERS)}", "source": "test", "kind": "benign", "strategy": None}
    return Dialogue(**row, images=["images/a.png"], turns=asked)


def test_tutor_calls_are_a_turn_each_of_the_data_or_ten_without_it(tmp_path):
    verl = {
        "trainer": {"total_training_steps": None, "total_epochs": 2, "test_freq": -1, "val_before_train": False},
        "data": {"train_batch_size": 2},
        "actor_rollout_ref": {"rollout": {"n": 5, "val_kwargs": {"n": 1}}},
    }
    data = SimpleNamespace(source=str(tmp_path / "steer_rl.jsonl"), turns="all", validation=[])
    assert tutor_load(data, verl) is None
    write_jsonl(data.source, map(dialogue_of, (2, 4, 3, 3, 8)))
    load = tutor_load(data, verl)
    assert load.calls == pytest.approx(2 * 2 * 2 * 5 * 4)  # epochs x steps x prompts x rollouts x mean turns
    assert load.tokens_in > load.calls * 1000  # pictures, and the turns before
    last = SimpleNamespace(**vars(data) | {"turns": "last"})
    assert tutor_load(last, verl).calls == pytest.approx(2 * 2 * 2 * 5)
    verl["trainer"]["total_training_steps"] = 3
    absent = SimpleNamespace(source=str(tmp_path / "absent"), turns="all", validation=[])
    assert tutor_load(absent, verl).calls == 3 * 2 * 5 * 10


def test_validations_cost_tutor_calls_too(tmp_path):
    held_out = tmp_path / "held_out.jsonl"
    write_jsonl(held_out, map(dialogue_of, (2, 4)))
    verl = {
        "trainer": {"total_training_steps": 5, "total_epochs": 1, "test_freq": 2, "val_before_train": True},
        "data": {"train_batch_size": 2},
        "actor_rollout_ref": {"rollout": {"n": 5, "val_kwargs": {"n": 3}}},
    }
    data = SimpleNamespace(source=str(tmp_path / "absent"), turns="all", validation=[str(held_out)])
    trained = 5 * 2 * 5 * 10
    assert tutor_load(data, verl).calls == pytest.approx(trained + 4 * 3 * 6)  # before, after steps 2, 4 and the last


def test_hidden_gpus_are_no_limit_for_rays_logical_ones(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # as in scripts/cpu_set.sh
    tree = load_config("configs/grpo/miniature.yaml", [f"root={tmp_path}"]).tree
    resolved = launch.resolve(tree, tmp_path / "grpo", {"model": "m", "base_url": "http://127.0.0.1:1/v1"})
    assert "CUDA_VISIBLE_DEVICES" not in launch.environment(resolved, tmp_path / "grpo")
    resolved.trainer.device = "cuda"
    assert launch.environment(resolved, tmp_path / "grpo")["CUDA_VISIBLE_DEVICES"] == ""
