"""The size of the house in numbers, of two revisions next to each other: what someone who inherits it has to read.

    python -m benchmarks.house [BEFORE] [AFTER]      for example ee7e66d HEAD (the defaults)

Output: a Markdown table. Lines are those of `.py`, `.jinja` and `.js`; source is without `tests/` and `benchmarks/`.
"""

import ast
import io
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STAGES = ("data_construction", "training", "exports", "evaluation")
PACKAGES = ("safer_steer", *STAGES, "verl", "miniature", "rehearsal", "reproduce")
ENDINGS = {".py", ".jinja", ".js"}


def unpack(revision: str, folder: Path) -> Path:
    """A revision's files in a folder."""
    data = subprocess.run(["git", "-C", str(ROOT), "archive", revision], capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def lines(path: Path) -> int:
    """The number of lines of a file."""
    return len(path.read_text(encoding="utf-8").splitlines())


def count(root: Path) -> dict[str, int]:
    """Name -> number, of one checkout."""
    files = [path for path in root.rglob("*") if path.suffix in ENDINGS and path.is_file()]
    source = [path for path in files if path.relative_to(root).parts[0] not in ("tests", "benchmarks")]
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in source if path.suffix == ".py"}
    nodes = [node for tree in trees.values() for node in ast.walk(tree)]
    numbers = {f"lines of {name}/": sum(map(lines, _below(source, root / name))) for name in PACKAGES}
    numbers |= {
        "lines of source": sum(map(lines, source)),
        "lines of tests/": sum(map(lines, _below(files, root / "tests"))),
        "files of source": len(source),
        "classes": sum(isinstance(node, ast.ClassDef) for node in nodes),
        "functions and methods": sum(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) for node in nodes),
        "files above 400 lines": sum(lines(path) > 400 for path in source if path.suffix == ".py"),
        "places that open a run record": sum("Run.open(" in path.read_text(encoding="utf-8") for path in trees),
        "places that start services": sum("start_services(" in path.read_text(encoding="utf-8") for path in trees),
        "files with a prompt": sum(path.suffix == ".jinja" for path in source),
    }
    return numbers


def _below(files: list[Path], folder: Path) -> list[Path]:
    return [path for path in files if folder in path.parents]


def main(before: str = "ee7e66d", after: str = "HEAD") -> None:
    """Prints the table."""
    found = []
    for revision in (before, after):
        with tempfile.TemporaryDirectory() as folder:
            found.append(count(unpack(revision, Path(folder))))
    print(f"| | {before} | {after} |\n|---|---|---|")
    for name in found[1]:
        print(f"| {name} | {found[0].get(name, 0):,} | {found[1][name]:,} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
