"""The import rules and the layout of the design: who imports whom, `verl` stays the engine's name, files stay small."""

import ast
import subprocess
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CORE = "safer_steer"
ENGINE_LAYER = "safer_steer_verl"
METHOD = ("safer_steer_verl.interactions", "safer_steer_verl.utils")  # Stage III's method, engine-free: for all stages
# package -> which of the project's packages it may import; of two that hold a module, the longer one counts
ALLOWED = {
    CORE: {CORE},
    "data_construction": {"data_construction", CORE, *METHOD},
    "training": {"training", CORE, *METHOD},
    # Launches the layer and speaks its config.
    "training.grpo": {"training.grpo", "training.ablations", CORE, ENGINE_LAYER},
    "evaluation": {"evaluation", CORE, *METHOD},
    # Its gold set is made of the miniature's world.
    "evaluation.calibrate": {"evaluation", CORE, "miniature", *METHOD},
    "miniature": {"miniature", CORE, *METHOD},
    METHOD[0]: {*METHOD, CORE},
    METHOD[1]: {*METHOD, CORE},
    ENGINE_LAYER: {ENGINE_LAYER, CORE},
    # Finished work of all stages in the formats of others.
    "exports": {"exports", CORE, "data_construction", "training", "evaluation", *METHOD},
    # It runs all stages for all cells of the paper.
    "reproduce": {"reproduce", CORE, "data_construction", "evaluation", "miniature", *METHOD},
    # It runs all stages on a machine before a long run does.
    "rehearsal": {"rehearsal", CORE, "data_construction", "training", "evaluation", "miniature", ENGINE_LAYER},
}
PACKAGES = sorted({name.partition(".")[0] for name in ALLOWED})
PURE_MODULES = ("safer_steer", "training/sft/config.py", "training/sft/run.py")
WITH_ENGINE = {ROOT / "safer_steer/ray_workers.py"}  # imported by a stage that asks for Ray, and by nothing else
ENGINES = {"torch", "transformers", "trl", "verl", "vllm", "ray", "peft", "deepspeed"}


def tracked(pattern: str) -> list[Path]:
    """Files of the repository that match, tracked or new, without ignored ones."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "--", pattern]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return sorted({ROOT / name for name in names if (ROOT / name).is_file()})


def source_root(package: str) -> Path:
    return ROOT / "verl" / package if package == ENGINE_LAYER else ROOT / package


def module_name(path: Path) -> str:
    """A file's dotted name."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts[1:] if parts[0] == "verl" else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


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


def within(module: str, packages: Iterable[str]) -> str:
    """The longest of the packages that holds a module; "" when none does."""
    return max((name for name in packages if f"{module}.".startswith(f"{name}.")), key=len, default="")


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_only_what_the_design_allows(package):
    breaks = []
    for path in source_root(package).rglob("*.py"):
        allowed = ALLOWED[within(module_name(path), ALLOWED)]
        breaks += [
            f"{path.relative_to(ROOT)} imports {name}"
            for name in imports(path)
            if name.partition(".")[0] in PACKAGES and not within(name, allowed)
        ]
    assert not breaks, breaks


@pytest.mark.parametrize("package", METHOD)
def test_the_method_is_engine_free(package):
    for path in (ROOT / "verl" / package.replace(".", "/")).rglob("*.py"):
        engines = {name.partition(".")[0] for name in imports(path)} & ENGINES
        assert not engines, f"{path.relative_to(ROOT)} imports {engines}"


def test_nothing_imports_top_level_scripts_or_tests():
    for path in tracked("*.py"):
        wrong = {name for name in imports(path) if name.partition(".")[0] in {"scripts", "tests"}}
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}: verl's wheel owns these names"


def test_no_import_cycle():
    modules = {module_name(path): path for package in PACKAGES for path in source_root(package).rglob("*.py")}
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
    for package in PACKAGES:
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
