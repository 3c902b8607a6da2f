"""Runs many `python -m MODULE ARGUMENTS` in one process, so that engines are imported once for all of them.

python run_modules.py RESULTS; stdin: a JSON list of [environment, module, arguments]. RESULTS: a JSON list of
[exit code, output]; a file, for engines write to stdout past Python.
"""

import contextlib
import io
import json
import os
import runpy
import sys
import traceback
from pathlib import Path


def run(environment: dict[str, str], module: str, arguments: list[str]) -> tuple[int, str]:
    """Runs one module as `__main__`; returns its exit code and what it wrote to both streams."""
    said = io.StringIO()
    before = dict(os.environ)
    os.environ.update(environment)
    sys.argv = [module, *arguments]
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
            code = 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
        except Exception:  # noqa: BLE001 - whatever a command dies of is its result
            traceback.print_exc()
            code = 1
    for name in environment:
        os.environ.pop(name, None)
        if name in before:
            os.environ[name] = before[name]
    return code, said.getvalue()


if __name__ == "__main__":
    place = Path(sys.argv[1])
    place.write_text(json.dumps([run(*task) for task in json.load(sys.stdin)]), encoding="utf-8")
