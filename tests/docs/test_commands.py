"""Every command of the README and the docs runs, in a copy of the repository with the files that pages tell to write.

Stage commands of all pages run in one process (`run_modules.py`), each distinct one once; the scripts themselves are
run by tests/test_scripts.py. A block whose treatment is missing or unknown fails.
"""

import json
import os
import random
import re
import shutil
import subprocess
import sys

import pytest
from PIL import Image

from doc_pages import APPENDED, PAGES, ROOT, SHELLS, Block, Command, blocks, commands
from miniature.teacher import create_app
from miniature.world import Scene, draw

BLOCKS = [block for page in PAGES for block in blocks(page)]
SHELL_BLOCKS = [block for block in BLOCKS if block.language in SHELLS]
COMMANDS = list(
    dict.fromkeys(command for block in SHELL_BLOCKS if block.treatment in APPENDED for command in commands(block))
)
COPIED = ("data_construction", "evaluation")  # pages write into these; the rest of the copy are links
EXEC = re.compile(r"^ *start python -m (\S+) \"\$@\"$", re.MULTILINE)


def edits(block: Block) -> tuple[str, str | None] | None:
    """(path, line behind which the block goes, or None for a whole file) of a block that is written."""
    words = (block.treatment or "").partition(" ")
    if words[0] == "file":
        return words[2], None
    if words[0] == "line":
        path, _, after = words[2].partition(" after ")
        return path, after
    return None


def module_of(command: Command) -> tuple[str, list[str]] | None:
    """The module and arguments that a command runs, where it runs a module and nothing else."""
    words = list(command.words)
    if words[:2] == ["python", "-m"]:
        return words[2], words[3:]
    if words[0] == "bash" and "--help" not in words:
        found = EXEC.search((ROOT / words[1]).read_text(encoding="utf-8"))
        if found:
            return found[1], words[2:]
    return None


def run(words, folder, env, said: str = "") -> subprocess.CompletedProcess:
    return subprocess.run(words, cwd=folder, env=env, input=said, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The repository in a folder of its own, with the pages' files written and their lines added."""
    folder = tmp_path_factory.mktemp("clone")
    for entry in ROOT.iterdir():
        if entry.name in COPIED:
            shutil.copytree(entry, folder / entry.name, ignore=shutil.ignore_patterns("__pycache__"))
        elif entry.name not in (".git", "outputs", "data"):
            (folder / entry.name).symlink_to(entry)
    for block in BLOCKS:
        if (edit := edits(block)) is None:
            continue
        path, after = folder / edit[0], edit[1]
        path.parent.mkdir(parents=True, exist_ok=True)
        if after is None:
            path.write_text(block.text, encoding="utf-8")
            continue
        text = path.read_text(encoding="utf-8")
        assert text.count(f"{after}\n") == 1, f"{block.page}: {edit[0]} has not one line {after!r}"
        path.write_text(text.replace(f"{after}\n", f"{after}\n{block.text}"), encoding="utf-8")
    picture = folder / "data/mine/images/kitchen.jpg"
    picture.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise((64, 48), 40).convert("RGB").save(picture)
    return folder


@pytest.fixture(scope="module")
def results(copy):
    """Exit code and output of every command."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(copy), str(copy / "verl")])}
    modules = {command: module for command in COMMANDS if (module := module_of(command))}
    tasks = [[dict(command.environment), *module] for command, module in modules.items()]
    place = copy / "outputs-of-commands.json"
    runner = [sys.executable, str(ROOT / "tests/support/run_modules.py"), str(place)]
    done = run(runner, copy, env, json.dumps(tasks))
    assert done.returncode == 0, done.stderr[-2000:]
    found = dict(zip(modules, json.loads(place.read_text(encoding="utf-8")), strict=True))
    for command in COMMANDS:
        if command not in found:
            ran = run(command.words, copy, env | dict(command.environment))
            found[command] = (ran.returncode, ran.stdout + ran.stderr)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_shell_block_has_a_known_treatment(page):
    for block in blocks(page):
        if block.language in SHELLS:
            assert block.language == "bash", f"{page.name}: write ```bash, so that the commands are run"
            known = block.treatment in APPENDED or edits(block)
            assert known, f"{page.name}: treatment {block.treatment!r} of\n{block.text}"
        elif block.treatment:
            assert edits(block), f"{page.name}: unknown treatment {block.treatment!r}"
        elif "bash scripts/" in block.text or re.search(r"^\s*(\$ )?python -m", block.text, re.MULTILINE):
            pytest.fail(f"{page.name}: commands in a block that is not ```bash:\n{block.text}")


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: f"{command.page}:{command}"[:90])
def test_command_runs(command, results):
    code, said = results[command]
    assert code == 0, f"{command.page}: {command}\n{said[-3000:]}"
    assert said.strip(), f"{command} said nothing"
    if command.words[-1] == "--dry-run" and module_of(command) and "scripts/quickstart.sh" not in command.words:
        assert "# plan" in said


def test_the_pages_strategy_and_benchmark_are_taken_up(copy, results):
    by_text = {str(command): said for command, (_, said) in results.items()}
    strategy = next(said for text, said in by_text.items() if "red_team.strategies=[curious_child]" in text)
    assert "- curious_child" in strategy
    bench = next(said for text, said in by_text.items() if "run_evaluation" in text and "own_bench" in text)
    assert "benchmarks: own_bench; 1 dialogues, 2 turns" in bench


def test_the_readmes_python_example_scores_an_answer(copy, serve):
    """As it is printed, against the miniature's tutor: the environment gives address and model."""
    draw(Scene("red", "box", True), random.Random(0)).save(copy / "picture.png")
    tutor = {"TUTOR_API_BASE_URL": serve(create_app()), "TUTOR_MODEL": "mini-tutor"}
    env = os.environ | tutor | {"PYTHONPATH": str(copy)}
    done = run([sys.executable, "outputs/score.py"], copy, env)
    assert done.returncode == 0, done.stderr[-2000:]
    verdict, values = done.stdout.strip().splitlines()
    assert "safety=8, usefulness=8, faithfulness=10" in verdict
    assert json.loads(values) == pytest.approx([1.0, 0.935, 0.4966667])
