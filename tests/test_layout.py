"""The import rules and the layout of the design: who imports whom, `verl` stays the engine's name, files stay small."""

import ast
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CORE = "safer_steer"
ENGINE_LAYER = "safer_steer_verl"
# package -> what of ours it may import
ALLOWED = {
    CORE: set(),
    "data_construction": {CORE},
    "training": {CORE},
    "evaluation": {CORE},
    "miniature": {CORE},
    ENGINE_LAYER: {CORE},
    # It runs all stages on a machine before a long run does.
    "rehearsal": {CORE, "data_construction", "training", "evaluation", "miniature", ENGINE_LAYER},
}
# Stage III's launcher and data preparation speak the layer's config, the reproduction applies its reward rules to
# recorded rollouts; the layer never imports them back.
EXCEPTIONS = {("training/grpo", ENGINE_LAYER), ("miniature/reproduce", ENGINE_LAYER)}
PURE_MODULES = ("safer_steer", "verl/safer_steer_verl/utils/tcsr.py", "training/sft/config.py", "training/sft/run.py")
WITH_ENGINE = {ROOT / "safer_steer/ray_workers.py"}  # imported by a stage that asks for Ray, and by nothing else
ENGINES = {"torch", "transformers", "trl", "verl", "vllm", "ray", "peft", "deepspeed"}


def tracked(pattern: str) -> list[Path]:
    """Files of the repository that match, tracked or new, without ignored ones."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "--", pattern]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return sorted({ROOT / name for name in names if (ROOT / name).is_file()})


def source_root(package: str) -> Path:
    return ROOT / "verl" / package if package == ENGINE_LAYER else ROOT / package


def imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    """Absolute names a file imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else ast.walk(tree)
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.ImportFrom):
            base = path.relative_to(ROOT).with_suffix("").parts[: -node.level]
            found.add(".".join((*base, node.module or "")).strip("."))
    return found


def test_verl_has_no_init():
    assert (ROOT / "verl").is_dir()
    assert not (ROOT / "verl" / "__init__.py").exists(), "verl/__init__.py would shadow the installed engine"


@pytest.mark.parametrize("package", ALLOWED)
def test_packages_import_only_what_the_design_allows(package):
    breaks = []
    for path in source_root(package).rglob("*.py"):
        relative = path.relative_to(ROOT).as_posix()
        for name in imports(path):
            other = name.partition(".")[0]
            allowed = other not in ALLOWED or other == package or other in ALLOWED[package]
            if not allowed and not any(relative.startswith(f) and other == e for f, e in EXCEPTIONS):
                breaks.append(f"{relative} imports {name}")
    assert not breaks, breaks


def test_nothing_imports_top_level_scripts_or_tests():
    for path in tracked("*.py"):
        wrong = {name for name in imports(path) if name.partition(".")[0] in {"scripts", "tests"}}
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}: verl's wheel owns these names"


def test_no_import_cycle():
    modules: dict[str, Path] = {}
    for package in ALLOWED:
        base = source_root(package).parent
        for path in source_root(package).rglob("*.py"):
            parts = path.relative_to(base).with_suffix("").parts
            modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    graph = {name: imports(path, top_level_only=True) & (modules.keys() - {name}) for name, path in modules.items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join([*trail[trail.index(name) :], name])
        if name not in done:
            for other in sorted(graph[name]):
                visit(other, (*trail, name))
            done.add(name)

    for name in sorted(graph):
        visit(name, ())


@pytest.mark.parametrize("module", PURE_MODULES)
def test_pure_logic_imports_no_engine(module):
    place = ROOT / module
    for path in set(place.rglob("*.py") if place.is_dir() else [place]) - WITH_ENGINE:
        engines = {name.partition(".")[0] for name in imports(path, top_level_only=True)} & ENGINES
        assert not engines, f"{path.relative_to(ROOT)} imports {engines}"


def test_files_and_scripts_stay_small():
    too_long = {}
    for path in tracked("*.py") + tracked("scripts/*.sh"):
        limit = 40 if path.suffix == ".sh" else 400
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > limit:
            too_long[str(path.relative_to(ROOT))] = lines
    assert not too_long, f"at most 400 lines a file and 40 a script: {too_long}"


def test_pyproject_lists_exactly_the_packages():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    listed = project["tool"]["setuptools"]["packages"]
    found = set()
    for package in ALLOWED:
        base = source_root(package).parent
        folders = {path.parent for path in source_root(package).rglob("*.py")}
        found |= {".".join(folder.relative_to(base).parts) for folder in folders}
    assert sorted(listed) == listed
    assert set(listed) == found, f"missing: {sorted(found - set(listed))}; too many: {sorted(set(listed) - found)}"


def test_no_registry_host_or_machine_path_in_the_repository():
    hosts = ("pypi" + ".org", "pythonhosted" + ".org", "index" + "-url", "download.pytorch" + ".org", "/root" + "/")
    for path in [p for p in tracked("*") if p.suffix not in {".png", ".jpg"} and p.name != "LICENSE"]:
        text = path.read_text(encoding="utf-8", errors="replace")
        found = [word for word in hosts if word in text]
        assert not found, f"{path.relative_to(ROOT)} names {found}"
