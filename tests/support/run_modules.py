"""Runs many `python -m MODULE ARGUMENTS` in one process, so that engines are imported once for all of them.

python run_modules.py RESULTS; stdin: a JSON list of [environment, module, arguments]. RESULTS: a JSON list of
[exit code, output]; a file, for engines write to stdout past Python. The streams have the encoding of PYTHONIOENCODING.
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
    said, encoding = io.BytesIO(), os.environ.get("PYTHONIOENCODING", "utf-8")
    out = io.TextIOWrapper(said, encoding, write_through=True)
    error = io.TextIOWrapper(said, encoding, "backslashreplace", write_through=True)
    before = dict(os.environ)
    os.environ.update(environment)
    sys.argv = [module, *arguments]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except Exception:  # noqa: BLE001 - whatever a command dies of is its result
            traceback.print_exc()
            code = 1
    for name in environment:
        os.environ.pop(name, None)
        if name in before:
            os.environ[name] = before[name]
    return code, said.getvalue().decode(encoding)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    place.write_text(json.dumps([run(*task) for task in json.load(sys.stdin)]), encoding="utf-8")
