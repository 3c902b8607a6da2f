"""Every script is sound and explains itself; every config loads; every stage's --dry-run runs on all its configs."""

import os
import subprocess
from pathlib import Path

import pytest
from omegaconf import OmegaConf

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = sorted((ROOT / "scripts").glob("*.sh"))
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
STAGES = ("data_construction", "sft", "grpo", "evaluation")
DRY_RUNS = [(stage, path) for stage in STAGES for path in sorted((ROOT / "configs" / stage).glob("*.yaml"))]


def run(*command: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=120, env=os.environ | environment, check=False
    )


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("script", SCRIPTS, ids=name)
def test_script_is_sound(script):
    parsed = run("bash", "-n", str(script))
    assert parsed.returncode == 0, parsed.stderr
    checked = run("shellcheck", str(script))
    assert checked.returncode == 0, checked.stdout
    text = script.read_text(encoding="utf-8")
    assert "set -euo pipefail" in text or "common.sh" in text, "strict mode is missing"
    assert "<<" not in text.replace("<<<", ""), "no Python in heredocs: a script only starts things"


@pytest.mark.parametrize("script", SCRIPTS, ids=name)
def test_script_has_help(script):
    shown = run("bash", str(script), "--help")
    assert shown.returncode == 0, shown.stderr
    assert len(shown.stdout.strip()) > 40


@pytest.mark.parametrize("stage", STAGES)
def test_stage_has_script_and_configs(stage):
    assert (ROOT / "scripts" / f"run_{stage}.sh").is_file()
    assert (ROOT / "configs" / stage / "miniature.yaml").is_file()


@pytest.mark.parametrize("config", CONFIGS, ids=name)
def test_config_loads(config):
    assert OmegaConf.to_container(OmegaConf.load(config)), f"{config} is empty"


@pytest.mark.parametrize(
    ("stage", "config"), DRY_RUNS, ids=lambda value: value if isinstance(value, str) else value.stem
)
def test_dry_run_prints_a_plan_and_touches_nothing(stage, config, tmp_path):
    tutor = (
        {"TUTOR_API_BASE_URL": "http://tutor.example:8000/v1"} if stage == "grpo" else {}
    )  # the paper's leave it open
    shown = run("bash", f"scripts/run_{stage}.sh", name(config), f"root={tmp_path}", "--dry-run", **tutor)
    assert shown.returncode == 0, shown.stderr
    assert "# plan" in shown.stdout
    assert str(tmp_path) in shown.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("stage", STAGES)
def test_bad_input_is_one_clear_line(stage):
    config = f"configs/{stage}/miniature.yaml"
    for arguments, said in (
        (["no_such_file.yaml"], "no_such_file.yaml"),
        ([config, "no_such_key=1", "another_bad_key=2"], "another_bad_key"),
    ):
        shown = run("bash", f"scripts/run_{stage}.sh", *arguments)
        lines = shown.stderr.strip().splitlines()
        assert shown.returncode == 2, shown.stdout + shown.stderr
        assert len(lines) == 1, shown.stderr
        assert lines[0].startswith("error: ")
        assert said in lines[0]
        if "no_such_key=1" in arguments:
            assert "no_such_key" in lines[0], "all errors are reported at once"


def test_stage_scripts_stop_without_an_environment(tmp_path):
    shown = run("bash", "scripts/run_sft.sh", "--dry-run", VENV=str(tmp_path / "absent"))
    assert shown.returncode == 2
    assert "bash scripts/setup.sh" in shown.stderr
