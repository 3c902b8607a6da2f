"""What developers rely on: docstrings in the agreed form, thin verbs, offline hooks, pins that agree."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
VERBS = dict(re.findall(r"^([a-z]+): ## .*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE))
HOOKS = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]


def run(*command: str, cwd: Path = ROOT, text: str | None = None) -> subprocess.CompletedProcess:
    return subprocess.run(command, cwd=cwd, input=text, capture_output=True, text=True, timeout=120, check=False)


def test_everything_public_has_a_docstring_in_googles_form():
    checked = run("ruff", "check", ".")
    assert checked.returncode == 0, checked.stdout
    lint = PROJECT["tool"]["ruff"]["lint"]
    assert "D" in lint["select"]
    assert lint["pydocstyle"]["convention"] == "google"
    # `noqa: D` in a file would be a hole in the rule.
    assert not run("git", "grep", "-nE", "noqa: ?D[0-9]", "--", "*.py").stdout


@pytest.mark.parametrize(
    ("code", "rule"),
    [
        ("def public():\n    return 1\n", "D103"),
        ('"""M."""\n\n\nclass Public:\n    x = 1\n', "D101"),
        ('"""M."""\n\n\nclass A:\n    """A."""\n\n    def public(self):\n        return 1\n', "D102"),
        ("x = 1\n", "D100"),
        ('"""M."""\n\n\ndef f(a):\n    """F.\n\n    args:\n        a: b.\n    """\n', "D4"),
    ],
)
def test_the_rule_sees_what_is_missing(code, rule):
    checked = run("ruff", "check", "--stdin-filename", "safer_steer/new.py", "-", text=code)
    assert rule in checked.stdout


def test_the_makefile_is_a_thin_list_of_verbs():
    assert {"setup", "test", "lint", "types", "audit", "quickstart", "bench"} <= VERBS.keys()
    assert len(VERBS) <= 10
    too_long = {verb: recipe for verb, recipe in VERBS.items() if recipe.count("\n") > 2}
    assert not too_long
    for verb, recipe in VERBS.items():
        for script in re.findall(r"bash ([\w/]+\.sh)", recipe):
            assert (ROOT / script).is_file(), f"{verb} calls {script}"
    if shutil.which("make"):
        shown = run("make", "--no-print-directory", "help")
        assert all(re.search(rf"^{verb} ", shown.stdout, re.MULTILINE) for verb in VERBS), shown.stdout + shown.stderr


def test_hooks_run_offline_at_the_pinned_versions():
    """A hook of another repository would need the network and bring versions of its own."""
    assert [repository["repo"] for repository in HOOKS] == ["local"]
    hooks = {hook["id"]: hook for hook in HOOKS[0]["hooks"]}
    assert {"ruff", "ruff-format", "shellcheck", "large-files", "private-keys", "yaml", "json"} <= hooks.keys()
    for hook in hooks.values():
        assert hook["language"] == "system"
        program = Path(hook["entry"].split()[0])
        assert program.parts[:2] == (".venv", "bin")
        assert run("bash", "-c", f"command -v {program.name}").returncode == 0, f"{program} is in no dependency"


def test_hooks_refuse_what_they_are_for(tmp_path):
    (tmp_path / "key").write_text("-----BEGIN RSA " + "PRIVATE KEY-----\n")
    (tmp_path / "a.yaml").write_text("a: [1\n")
    (tmp_path / "a.json").write_text("{,}\n")
    for hook, file in (("private-keys", "key"), ("yaml", "a.yaml"), ("json", "a.json")):
        entry = next(h["entry"] for h in HOOKS[0]["hooks"] if h["id"] == hook).split()
        assert run(Path(entry[0]).name, *entry[1:], str(tmp_path / file)).returncode == 1, hook


@pytest.mark.parametrize(("file", "extra"), [("requirements.txt", "gpu"), ("requirements-cpu.txt", "cpu")])
def test_both_sets_hold_every_pin(file, extra):
    pins = set((ROOT / file).read_text(encoding="utf-8").splitlines())
    optional = PROJECT["project"]["optional-dependencies"]
    wanted = [*PROJECT["project"]["dependencies"], *optional["dev"], *optional[extra]]
    missing = [item for item in wanted if re.sub(r"\[.*\]", "", item) not in pins]
    assert not missing
    assert all("==" in item for item in wanted)


def test_contributing_names_every_package_and_only_files_that_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 120, "one page"
    folders = ("safer_steer/", "data_construction/", "training/", "verl/safer_steer_verl/", "evaluation/", "miniature/")
    assert not [folder for folder in folders if f"`{folder}`" not in text]
    for name in re.findall(
        r"`((?:tests|verl|evaluation|data_construction|safer_steer|miniature|scripts)/[\w/.-]+)`", text
    ):
        assert "NAME" in name or (ROOT / name).exists(), name
    for verb in re.findall(r"make (\w+)", text):
        assert verb in {*VERBS, "help"} or verb == "both", verb
