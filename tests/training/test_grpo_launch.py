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
from ray.exceptions import RayTaskError

from safer_steer.config import relevant
from safer_steer.deaths import MemoryLog
from safer_steer.dialogue import Dialogue, Turn
from safer_steer.errors import UserError
from safer_steer.store import read_jsonl, write_jsonl
from safer_steer_verl import main
from safer_steer_verl.beats import FOLDER
from safer_steer_verl.kept import keep_only, whole_steps
from safer_steer_verl.local_ray import ray_options
from safer_steer_verl.platform import GROUP_TIMEOUT
from training.grpo import checkpoints, failure, processes
from training.grpo import run as grpo
from training.grpo.config import Loaded, load_config
from training.grpo.plan import plan, tutor_load

NUMBERS = itertools.count()


def checkpoint(folder: Path, *steps: int, whole: bool = True, tracker: str = "") -> None:
    """Verl's checkpoints of these steps, and its tracker file."""
    for step in steps:
        actor = folder / f"global_step_{step}" / "actor"
        actor.mkdir(parents=True)
        (actor / "model_world_size_1_rank_0.pt").write_text("x")
        if whole:
            (actor.parent / "data.pt").write_text("x")
    (folder / checkpoints.TRACKER).write_text(tracker)


def rows(folder: Path, *steps: int) -> Path:
    path = folder / "metrics.jsonl"
    path.write_text("".join(f'{{"step": {step}}}\n' for step in steps))
    return path


def test_the_last_whole_checkpoint_is_found(tmp_path):
    assert checkpoints.last_step(tmp_path / "none", tmp_path / "metrics.jsonl") == 0
    checkpoint(tmp_path, 2, 4, tracker="4")
    assert checkpoints.last_step(tmp_path, rows(tmp_path, 1, 2, 3, 4)) == 4


@pytest.mark.parametrize("tracker", ["", "4", "x"])
def test_a_torn_save_falls_back_to_the_step_before(tmp_path, tracker):
    checkpoint(tmp_path, 2)
    checkpoint(tmp_path, 4, whole=False, tracker=tracker)
    assert checkpoints.last_step(tmp_path, rows(tmp_path, 1, 2, 3)) == 2
    assert (tmp_path / checkpoints.TRACKER).read_text() == "2"


@pytest.mark.parametrize("tracker", ["", "4"])
def test_a_step_saved_without_its_rows_is_done_again(tmp_path, tracker, capsys):
    checkpoint(tmp_path, 2, 4, tracker=tracker)
    assert checkpoints.last_step(tmp_path, rows(tmp_path, 1, 2, 3)) == 2
    assert "before the rows of step 4 were written; continues after step 2" in capsys.readouterr().err
    assert checkpoints.last_step(tmp_path, rows(tmp_path, 1, 2)) == 2  # killed again, at step 3


def test_a_first_checkpoint_without_its_rows_starts_again(tmp_path):
    from verl.utils.checkpoint.checkpoint_manager import find_latest_ckpt_path

    checkpoint(tmp_path, 3, tracker="3")
    assert checkpoints.last_step(tmp_path, rows(tmp_path, 1, 2)) == 0
    assert checkpoints.last_step(tmp_path, rows(tmp_path, 1)) == 0  # killed again, at step 2
    assert find_latest_ckpt_path(str(tmp_path)) is None


def test_lost_rows_of_finished_steps_are_refused_and_nothing_changes(tmp_path):
    checkpoint(tmp_path, 2, 4, tracker="4")
    with pytest.raises(UserError, match=r"no row of step 3, but .* checkpoint of step 4; put the file back"):
        checkpoints.last_step(tmp_path, tmp_path / "metrics.jsonl")
    assert (tmp_path / checkpoints.TRACKER).read_text() == "4"


def kept_after(folder: Path, step: int, keep: int | None) -> tuple[list[int], list[str]]:
    """What was said to be removed, and what is there."""
    return keep_only(folder, step, keep), sorted(path.name for path in folder.iterdir() if path.is_dir())


@pytest.mark.parametrize(
    ("step", "keep", "left"),
    [
        (6, 2, [4, 6]),
        (4, 2, [2, 4]),  # the rows of step 6 were not written: it is done again
        (6, 3, [2, 4, 6]),
        (6, None, [2, 4, 6]),
        (2, 2, [2]),
        (0, 2, []),
        (3, 2, [2, 3, 4, 5, 6, 8]),  # not whole, which should not happen: nothing is removed
        (7, 2, [2, 3, 4, 5, 6, 8]),  # nor is where the one to continue from is not there
    ],
)
def test_a_resumed_run_keeps_the_checkpoint_to_continue_from_and_those_before(tmp_path, step, keep, left):
    checkpoint(tmp_path, 2, 4, 6)
    checkpoint(tmp_path, 3, 8, whole=False)
    (tmp_path / "global_step_5").mkdir()
    (tmp_path / "global_step_5" / "data.pt").write_text("x")  # what verl leaves of one that it removed
    checkpoint(tmp_path / "mine", 1)
    (tmp_path / "global_step_6_copy").mkdir()
    removed, there = kept_after(tmp_path, step, keep)
    assert removed == [number for number in (2, 3, 4, 5, 6, 8) if number not in left]
    assert there == sorted([*(f"global_step_{number}" for number in left), "global_step_6_copy", "mine"])
    if step in (2, 4, 6):
        rows(tmp_path, *range(1, step + 1))
        assert checkpoints.last_step(tmp_path, tmp_path / "metrics.jsonl") == step


def test_a_checkpoint_that_was_moved_and_linked_stays(tmp_path):
    checkpoint(tmp_path / "large", 2, 4)
    folder = tmp_path / "checkpoints"
    checkpoint(folder, 6, 8)
    for step in (2, 4):
        (folder / f"global_step_{step}").symlink_to(tmp_path / "large" / f"global_step_{step}")
    assert kept_after(folder, 4, 2) == ([6, 8], ["global_step_2", "global_step_4"])
    assert keep_only(tmp_path / "none", 0, 2) == []


def test_a_kill_while_a_checkpoint_is_removed_leaves_none_that_looks_whole(tmp_path, monkeypatch):
    checkpoint(tmp_path, 2, 4, 6)
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    keep_only(tmp_path, 6, 2)
    assert whole_steps(tmp_path) == [6, 4]


def test_a_resumed_run_removes_what_it_does_not_need_before_the_engine_starts(tmp_path, monkeypatch, capsys):
    folder, seen = tmp_path / "grpo", []
    checkpoint(folder / "checkpoints", 2, 4, 6, tracker="6")
    checkpoint(folder / "checkpoints", 8, whole=False, tracker="6")
    rows(folder, *range(1, 8))

    def engine(*_, done, **__):
        seen.extend([done, *sorted(path.name for path in (folder / "checkpoints").glob("global_step_*"))])
        checkpoint(folder / "checkpoints", 8, tracker="8")
        rows(folder, *range(1, 9))
        return 0.0

    monkeypatch.setattr(grpo, "run_engine", engine)
    monkeypatch.setattr(processes, "environment", lambda *_: {})
    trainer = {"total_training_steps": 8, "total_epochs": 1, "save_freq": 2, "max_actor_ckpt_to_keep": 2}
    trainer |= {"val_before_train": False}
    config = {"trainer": trainer, "data": {"train_batch_size": 2}, "ray_kwargs": {"ray_init": {}}}
    assert grpo.train(OmegaConf.create(config), folder, 16, 600)["steps"] == 8
    assert seen == [6, "global_step_4", "global_step_6"]
    assert "removed checkpoints of an earlier attempt, of steps 2, 8" in capsys.readouterr().err


def test_rows_of_steps_that_will_be_done_again_are_taken_out(tmp_path):
    rows(tmp_path, 0, 1, 2, 3)
    write_jsonl(tmp_path / "trajectories.jsonl", [{"id": str(n), "meta": {"step": n // 2}} for n in range(2, 8)])
    checkpoints.rewind(tmp_path, 2)
    assert [row["step"] for row in read_jsonl(tmp_path / "metrics.jsonl")] == [0, 1, 2]
    assert [row["meta"]["step"] for row in read_jsonl(tmp_path / "trajectories.jsonl")] == [1, 1, 2, 2]
    checkpoints.rewind(tmp_path, 0)
    assert (tmp_path / "metrics.jsonl").read_text() == "", "the validation before training is done again too"


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


def test_rays_folder_is_short_and_this_users_alone(tmp_path, monkeypatch):
    assert len(str(processes.ray_folder(tmp_path / ("x" * 80)))) < 60
    for tmpdir, base in (("/localscratch/user.12345678.0", "/tmp"), ("/scratch", "/scratch")):
        monkeypatch.setattr(tempfile, "tempdir", tmpdir)
        assert str(processes.ray_folder(tmp_path).parent) == base
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setattr(processes, "LONGEST_TMPDIR", 1000)
    place = processes.ray_folder(tmp_path)
    (place / "left").mkdir(parents=True)
    processes.make_ray_folder(tmp_path)
    assert list(place.iterdir()) == []
    assert place.stat().st_mode & 0o777 == 0o700
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)  # another user's, in a sticky folder
    with pytest.raises(UserError, match="another user's"):
        processes.make_ray_folder(tmp_path)


def test_a_failure_is_one_line(tmp_path):
    log, reason, memory = tmp_path / "verl.log", tmp_path / "failure.json", MemoryLog()
    inner = RayTaskError("step", "Traceback", ValueError("rows differ\nforged"), "p", 1, "ip")
    reason.write_text(json.dumps(main.failure(RayTaskError("run", "Traceback", inner, "p", 1, "ip"))))
    said = f"verl ended with code 1: ValueError: forged; full log: {log}"
    assert failure.failure_message(1, reason, log, memory) == said
    reason.write_text(json.dumps(main.failure(UserError("step 3: 40% of 64 trajectories have no score"))))
    assert failure.failure_message(2, reason, log, memory) == "step 3: 40% of 64 trajectories have no score"


def test_the_tutors_usage_is_the_sum_of_the_workers_totals(tmp_path):
    totals = [{"a": 3}, {"a": 5, "b": 2}, {"c": 1}]  # worker c: after a resume
    rows = [{"tutor_usage": {w: {"calls": n, "usd": 0.5} for w, n in row.items()}} for row in totals]
    write_jsonl(tmp_path / "metrics.jsonl", rows)
    assert grpo.tutor_usage(tmp_path / "metrics.jsonl") == {"calls": 8, "usd": 1.5}


def resolved(loaded: Loaded, folder: Path):
    """The config as verl reads it, the tutor's server running."""
    tutor = loaded.config.safer_steer.tutor.model_copy(update={"base_url": "http://127.0.0.1:1/v1"})
    return grpo.engine_config(loaded, folder, tutor)


def test_the_engines_config_has_absolute_paths_and_no_interpolation(tmp_path, monkeypatch):
    """What is found from another folder: the run's own paths, a reward function and a tutor's prompt."""
    (tmp_path / "mine.py").write_text("def score(turn):\n    return 1.0\n")
    (tmp_path / "mine.jinja").write_text("{{ data_block(data) }}")
    (tmp_path / "run" / "sft" / "checkpoint").mkdir(parents=True)
    path = Path("configs/grpo/miniature.yaml").resolve()
    monkeypatch.chdir(tmp_path)
    own = ["safer_steer.reward=mine.py:score", "safer_steer.tutor.prompt=mine.jinja"]
    loaded = load_config(path, ["root=run", *own])
    config = resolved(loaded, Path("run/grpo"))
    ours = config.safer_steer
    assert (ours.tutor.base_url, ours.tutor.prompt) == ("http://127.0.0.1:1/v1", str(tmp_path / "mine.jinja"))
    assert (ours.reward.function, ours.data.source) == (
        f"{tmp_path}/mine.py:score",
        f"{tmp_path}/run/data/steer_rl.jsonl",
    )
    assert config.output == f"{tmp_path}/run/grpo"
    assert config.trainer.default_local_dir == f"{tmp_path}/run/grpo/checkpoints"
    assert config.actor_rollout_ref.model.path == f"{tmp_path}/run/sft/checkpoint"
    assert config.ray_kwargs.ray_init._temp_dir == str(processes.ray_folder(tmp_path / "run" / "grpo"))
    env = processes.environment(config, tmp_path / "run" / "grpo")
    assert (env["VERL_PLATFORM"], env["HF_HUB_OFFLINE"]) == ("cpu", "1")
    assert env[processes.MARK] == processes.mark_of(tmp_path / "run" / "grpo")
    assert grpo.inputs(loaded.config)["reward score"] == Path("mine.py")  # its content counts, not where it lies
    assert "mine" not in str(relevant(loaded.config.safer_steer))


TUTOR = "safer_steer.tutor.base_url=http://tutor.example:8000/v1"


def test_a_gpu_run_without_services_gets_as_far_as_the_missing_gpu(tmp_path, monkeypatch):
    """Nothing but the launcher makes its folders: neither the CPU build's metadata nor a service's log is there."""
    monkeypatch.setattr(processes, "metadata_folder", lambda _: None)
    loaded = load_config("configs/grpo/qwen2_5_vl_3b.yaml", ["layout=one_node", f"root={tmp_path}/run"])
    config = resolved(loaded, tmp_path / "grpo")
    env = processes.environment(config, tmp_path / "grpo") | {"CUDA_VISIBLE_DEVICES": ""}
    assert (env[GROUP_TIMEOUT], "VERL_PLATFORM" in env) == ("3600", "VERL_PLATFORM" in os.environ)
    for name in (GROUP_TIMEOUT, FOLDER):
        monkeypatch.setenv(name, env[name])
    for_workers = ray_options(config)["runtime_env"]["env_vars"]  # of every node
    assert (for_workers[GROUP_TIMEOUT], for_workers[FOLDER]) == ("3600", str(tmp_path / "grpo" / "log" / "beats"))
    (tmp_path / "grpo").mkdir()
    (tmp_path / "grpo" / "config.yaml").write_text(OmegaConf.to_yaml(config))
    with pytest.raises(UserError, match="no GPU is visible"):
        grpo.run_engine(tmp_path / "grpo", env, steps=1, done=0, stall_s=600)
    assert (tmp_path / "grpo" / "log" / "verl.log").is_file()


@pytest.mark.parametrize("path", sorted(Path("configs/grpo").glob("*.yaml")), ids=lambda path: path.stem)
def test_economies_of_a_cpu_stay_there_and_no_checkpoint_changes_the_sampling(path, tmp_path):
    config = resolved(load_config(path, [f"root={tmp_path}", TUTOR]), tmp_path / "grpo")
    assert config.actor_rollout_ref.rollout.engine_kwargs.vllm.generation_config == "vllm"
    assert config.actor_rollout_ref.nccl_timeout == 3600
    cuda, refs = config.trainer.device == "cuda", config.actor_rollout_ref
    units = config.transfer_queue.backend.SimpleStorage.num_data_storage_units
    parts = (refs.actor.use_dynamic_bsz, refs.rollout.log_prob_use_dynamic_bsz, refs.ref.log_prob_use_dynamic_bsz)
    assert set(parts) == {cuda}, "packed rows are cut by tokens, padded ones by rows"
    if cuda:
        length = config.data.max_prompt_length + config.data.max_response_length
        assert refs.actor.ppo_max_token_len_per_gpu == refs.actor.ppo_micro_batch_size_per_gpu * length
        assert refs.ref.log_prob_max_token_len_per_gpu == refs.ref.log_prob_micro_batch_size_per_gpu * length
        assert config.data.dataloader_num_workers
        assert config.trainer.logger
    assert units >= 8 if cuda else units == 1


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
    assert (grpo.set_steps(config, prompts), config.trainer.total_epochs) == wanted
    assert config.trainer.total_training_steps == wanted[0]


def test_dry_run_prints_the_plan_and_touches_nothing(tmp_path):
    said = str(plan(load_config("configs/grpo/miniature.yaml", [f"root={tmp_path}/run"]).config))
    for part in (
        "20 steps of 16 prompts x 4 rollouts",
        "10 turns of 32 tokens and their questions are 670 tokens, data.max_response_length is 288",
        "calls of tutor",
    ):
        assert part in said
    assert not (tmp_path / "run").exists()


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
    config = resolved(load_config("configs/grpo/miniature.yaml", [f"root={tmp_path}"]), tmp_path / "grpo")
    assert "CUDA_VISIBLE_DEVICES" not in processes.environment(config, tmp_path / "grpo")
    config.trainer.device = "cuda"
    assert processes.environment(config, tmp_path / "grpo")["CUDA_VISIBLE_DEVICES"] == ""
