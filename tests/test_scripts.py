"""Every script is sound and explains itself; every stage's --dry-run runs on all its configs.

What scripts start is run in one process (`support/run_modules.py`), so that engines are imported once; each stage's
script itself once, without an engine.
"""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = sorted((ROOT / "scripts").glob("*.sh"))
STAGES = ("data_construction", "sft", "grpo", "evaluation")
STARTS = {
    path: re.search(r'^ *start python -m (\S+) "\$@"$', path.read_text("utf-8"), re.MULTILINE) for path in SCRIPTS
}
MODULES = {path: found[1] for path, found in STARTS.items() if found}
UNKNOWN = ("no_such_key=1", "another_bad_key=2")


def run(*command: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=120, env=os.environ | environment, check=False
    )


def module(stage: str) -> str:
    return MODULES[ROOT / f"scripts/run_{stage}.sh"]


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """`answers(module, argument, ...)`: exit code and output, of all that the tests below ask for."""
    folder = tmp_path_factory.mktemp("answers")
    tasks = [({}, name, ("--help",)) for name in MODULES.values()]
    for stage in STAGES:
        miniature = f"configs/{stage}/miniature.yaml"
        tutor = {"TUTOR_API_BASE_URL": "http://tutor.example:8000/v1"} if stage == "grpo" else {}  # left open by some
        for path in sorted((ROOT / "configs" / stage).glob("*.yaml")):
            name = str(path.relative_to(ROOT))
            tasks.append((tutor, module(stage), (name, f"root={folder}/root", "--dry-run")))
        tasks += [({}, module(stage), wrong) for wrong in (["no_such_file.yaml"], [miniature, *UNKNOWN])]
    said = run_modules(tasks, folder)
    assert not (folder / "root").exists(), "a dry run touches nothing"
    return {(name, *arguments): answer for (_, name, arguments), answer in zip(tasks, said, strict=True)}


def run_modules(tasks: list, folder: Path) -> list:
    place = folder / "answers.json"
    command = [sys.executable, "tests/support/run_modules.py", str(place)]
    done = subprocess.run(command, cwd=ROOT, input=json.dumps(tasks), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(place.read_text(encoding="utf-8"))


def test_scripts_are_sound():
    checked = run("shellcheck", *map(str, SCRIPTS))
    assert checked.returncode == 0, checked.stdout
    for script in SCRIPTS:
        text = script.read_text(encoding="utf-8")
        assert "set -euo pipefail" in text or "common.sh" in text, f"{script}: strict mode is missing"
        assert "<<" not in text.replace("<<<", ""), f"{script}: no Python in heredocs: a script only starts things"


def test_every_script_has_help(answers):
    for script in SCRIPTS:
        if script in MODULES:
            code, said = answers[MODULES[script], "--help"]
        else:
            shown = run("bash", str(script), "--help")
            code, said = shown.returncode, shown.stdout
        assert (code, len(said.strip()) > 40) == (0, True), f"{script}: {said}"


@pytest.mark.parametrize("stage", STAGES)
def test_dry_run_of_every_config_prints_a_plan(stage, answers):
    dry = {key: answer for key, answer in answers.items() if key[0] == module(stage) and key[-1] == "--dry-run"}
    assert len(dry) == len(list((ROOT / "configs" / stage).glob("*.yaml"))) > 1
    for (_, config, root, _), (code, said) in dry.items():
        assert code == 0, f"{config}: {said}"
        assert "# plan" in said
        assert root.removeprefix("root=") in said


@pytest.mark.parametrize("stage", STAGES)
def test_the_script_starts_its_module_with_its_arguments(stage):
    shown = run("bash", f"scripts/run_{stage}.sh", f"configs/{stage}/miniature.yaml", UNKNOWN[0])
    assert shown.returncode == 2, shown.stderr
    assert "no_such_key" in shown.stderr


@pytest.mark.parametrize("stage", STAGES)
def test_bad_input_is_one_clear_line(stage, answers):
    """All errors are reported at once."""
    for arguments, words in (
        (("no_such_file.yaml",), [str(ROOT / "no_such_file.yaml")]),
        ((f"configs/{stage}/miniature.yaml", *UNKNOWN), ["no_such_key", "another_bad_key"]),
    ):
        code, said = answers[(module(stage), *arguments)]
        assert (code, len(said.strip().splitlines())) == (2, 1), said
        assert said.startswith("error: ")
        assert all(word in said for word in words), said


def test_stage_scripts_stop_without_an_environment(tmp_path):
    shown = run("bash", "scripts/run_sft.sh", "--dry-run", VENV=str(tmp_path / "absent"))
    assert shown.returncode == 2
    assert "bash scripts/setup.sh" in shown.stderr


# An interpreter whose environments are itself, and whose pip never ends.
STUCK = """#!/usr/bin/env bash
case ${2:-} in
  venv) mkdir -p "${@: -1}/bin" && cp "$0" "${@: -1}/bin/python" ;;
  pip) echo $$ >"$STUCK" && exec sleep 600 ;;
esac
"""


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path


def test_an_interrupt_ends_the_set_up_while_it_installs(tmp_path):
    """With an interpreter whose path has a space."""
    python, stuck = executable(tmp_path / "a folder" / "python", STUCK), tmp_path / "stuck"
    own = {"PYTHON": str(python), "VENV": str(tmp_path / "venv"), "STUCK": str(stuck)}
    command = ["bash", "scripts/setup.sh", "cpu"]
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | own, stderr=subprocess.PIPE, text=True)
    try:
        while not (stuck.is_file() and stuck.read_text()):
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        process.terminate()
        _, said = process.communicate(timeout=300)
    finally:
        process.kill()
    assert (process.returncode, said.strip()) == (130, "interrupted; run the same command again to continue from here")
    assert not psutil.pid_exists(int(stuck.read_text()))


@pytest.mark.parametrize("script", ["common", "cpu_set"])
def test_the_users_cdpath_leads_nowhere(script, tmp_path):
    (tmp_path / "scripts").mkdir()
    shown = run("bash", "-c", f"source scripts/{script}.sh; pwd", CDPATH=str(tmp_path))
    assert shown.stdout.splitlines() == [str(ROOT)], shown.stderr


def test_benchmarks_remove_their_own_figures_and_nothing_else(tmp_path):
    executable(tmp_path / "venv" / "bin" / "python", "#!/usr/bin/env bash\n")
    for name in ("llm_client", "mine"):
        (tmp_path / f"{name}.json").write_text("{}", encoding="utf-8")
    shown = run("bash", "benchmarks/run_all.sh", "--out", str(tmp_path), VENV=str(tmp_path / "venv"))
    assert shown.returncode == 0, shown.stderr
    assert [path.name for path in tmp_path.glob("*.json")] == ["mine.json"]
