"""Every entry point, with names that its terminal or log, which takes ASCII alone, cannot show: none ends of it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = [folder for folder in sorted(ROOT.iterdir()) if folder.name not in ("tests", "benchmarks")]
GUARD = re.compile(r"^if __name__ == .__main__.:", re.MULTILINE)
SOURCES = [folder for folder in SOURCES if folder.name == "verl" or (folder / "__init__.py").is_file()]
FILES = [path.relative_to(ROOT) for folder in SOURCES for path in sorted(folder.rglob("*.py"))]
ENTRIES = [
    ".".join(path.with_suffix("").parts).removeprefix("verl.").removesuffix(".__main__")
    for path in FILES
    if path.name == "__main__.py" or GUARD.search((ROOT / path).read_text(encoding="utf-8"))
]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """(exit code, output) of every entry point under each set of arguments."""
    folder = tmp_path_factory.mktemp("ascii")
    name = folder / "\u00e9"
    (name / "seed_1").mkdir(parents=True)  # what reproduce.page looks for
    given = (["--help"], ["--dry-run", f"root={name}"], ["--dry-run", f"output={name}"], ["--root", str(name)])
    tasks = [({}, entry, arguments) for entry in ENTRIES for arguments in given]
    command = [sys.executable, "tests/support/run_modules.py", str(folder / "results.json")]
    env = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        command, input=json.dumps(tasks), env=env, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, list] = {entry: [] for entry in ENTRIES}
    for (_, entry, _), result in zip(tasks, json.loads((folder / "results.json").read_text()), strict=True):
        found[entry].append(result)
    return found


@pytest.mark.parametrize("entry", ENTRIES)
def test_an_ascii_terminal_ends_no_command(entry, outputs):
    (_, help_text), *others = outputs[entry]
    for _, said in outputs[entry]:
        assert "UnicodeEncodeError" not in said
        assert "UnicodeDecodeError" not in said
    if "--dry-run" in help_text and "(default: configs/" in help_text:
        assert any(r"\xe9" in said for _, said in others), others
