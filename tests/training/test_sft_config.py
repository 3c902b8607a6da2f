"""SFT config and command line: batch arithmetic, paper values, one-line errors, plan, damaged checkpoints."""

import json
import subprocess
import sys

import pytest

from safer_steer.config import load_config
from safer_steer.errors import UserError
from safer_steer.store import write_jsonl
from training.sft.checks import launch_problem, problems_before_start
from training.sft.config import SftConfig
from training.sft.run import main

MINIATURE = "configs/sft/miniature.yaml"


def test_batch_arithmetic_must_come_out():
    with pytest.raises(UserError, match=r"batch_size 16 is not .* 16 x gradient_accumulation 2 x processes 1 = 32"):
        load_config(SftConfig, MINIATURE, ["training.gradient_accumulation=2"])


def test_world_size_must_be_the_configured_one():
    training = load_config(SftConfig, "configs/sft/qwen2_5_vl_7b.yaml").training
    assert launch_problem(training, 8) is None
    assert "training.processes=4 training.gradient_accumulation=4" in launch_problem(training, 4)
    assert "change training.per_device_batch_size" in launch_problem(training, 3)


def test_batch_arithmetic_missing_files_and_unknown_flag_are_told_together(tmp_path):
    overrides = [f"root={tmp_path}", "freeze.encoder=true", "training.batch_size=32", "training.weight_decay=-1"]
    with pytest.raises(UserError) as caught:
        load_config(SftConfig, MINIATURE, overrides)
    text = str(caught.value)
    assert text.count("batch_size 32 is not") == 1, "told once, also where the section did not validate"
    for word in ("5 problem(s)", "freeze.encoder", "no checkpoint at", "steer_sft.jsonl", "training.weight_decay"):
        assert word in text
    with pytest.raises(UserError, match=r"batch_size 32 is not .* = 16.*no checkpoint at"):
        load_config(SftConfig, MINIATURE, overrides[:1] + overrides[2:3])


def test_export_epoch_and_picture_limits_must_fit():
    with pytest.raises(UserError, match="export_epoch 6 is above epochs 5"):
        load_config(SftConfig, MINIATURE, ["training.export_epoch=6"])
    with pytest.raises(UserError, match=r"images\.max_pixels"):
        load_config(SftConfig, MINIATURE, ["images.max_pixels=1000"])
    with pytest.raises(UserError, match=r"answer_format.tags.*without <>"):
        load_config(SftConfig, MINIATURE, ["answer_format.tags=['<answer>']"])


@pytest.mark.parametrize("stage", [2, 3])
def test_deepspeed_files_leave_the_batch_to_the_sft_config(stage):
    path = f"configs/deepspeed/zero{stage}.yaml"
    training = load_config(SftConfig, MINIATURE, [f"training.deepspeed={path}"]).training
    assert training.zero_stage == stage
    assert training.deepspeed_settings()["train_batch_size"] == "auto"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("zero_optimization: {stage: 1}", "allowed: 2, 3"),
        ("train_batch_size: 4", "zero_optimization.stage"),
        ("zero_optimization: {stage: 2}\ntrain_batch_size: 4", "train_batch_size.*must be `auto`"),
        ("{", "not YAML"),
    ],
)
def test_unsound_deepspeed_files_are_refused(text, said, tmp_path):
    path = tmp_path / "ds.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=said):
        load_config(SftConfig, MINIATURE, [f"training.deepspeed={path}"])
    with pytest.raises(UserError, match="no DeepSpeed file"):
        load_config(SftConfig, MINIATURE, [f"training.deepspeed={tmp_path / 'absent.yaml'}"])


def test_missing_tracker_files_and_processes_stop_the_run_together(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    config = load_config(SftConfig, MINIATURE, [f"root={tmp_path}", "training.trackers=[swanlab]"])
    problems = problems_before_start(config, launched=2)
    assert [any(word in p for p in problems) for word in ("2 process", "no checkpoint", "steer_sft", "swanlab")] == [
        True
    ] * 4
    with pytest.raises(
        UserError, match=r"no checkpoint at.*file not found: .*steer_sft\.jsonl.*swanlab is not installed"
    ):
        main(config)


@pytest.mark.parametrize(("status", "works"), [("finished", False), ("running", True)])
def test_other_ranks_do_not_wait_for_a_finished_run(status, works, tmp_path, monkeypatch):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}", encoding="utf-8")
    write_jsonl(tmp_path / "data" / "steer_sft.jsonl", [])
    (tmp_path / "sft").mkdir()
    (tmp_path / "sft" / "run.json").write_text(json.dumps({"status": status}), encoding="utf-8")
    overrides = ["training.processes=2", "training.per_device_batch_size=8", f"root={tmp_path}"]
    for name, value in {"WORLD_SIZE": "2", "RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    worked = []
    monkeypatch.setattr("training.sft.run._work", worked.append)
    assert main(load_config(SftConfig, MINIATURE, overrides)) == 0
    assert bool(worked) is works


def test_command_line_imports_no_engine():
    code = (
        "import sys; sys.argv = ['run', '--dry-run']\n"
        "import runpy\n"
        "try: runpy.run_module('training.sft.run', run_name='__main__')\n"
        "except SystemExit as end: assert end.code == 0\n"
        "print(sorted({'torch', 'transformers', 'trl'} & sys.modules.keys()))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[-1] == "[]"
