"""Shared by all tests: the paths and switches of scripts/common.sh, `unit` as the mark of a test that has none, and
`serve(app)`: a real HTTP server in a thread; gives its base URL ending in /v1.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parents[1]
# For processes that tests start: scripts, servers, Ray workers.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "verl")])
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ.pop("SAFER_STEER_SPEAKER", None)  # commands that tests start speak for themselves
os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",  # as in scripts/common.sh
    "TOKENIZERS_PARALLELISM": "false",
    "DO_NOT_TRACK": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}

from http_doubles import serving  # noqa: E402 - its libraries read the switches above when they are imported

# On a busy machine an example may take as long as it takes. A fixture of a test serves all of the test's examples.
PROFILE = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]}
settings.register_profile("any machine", **PROFILE)
settings.load_profile("any machine")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Marks every test without `integration` as `unit`; leaves `nightly` ones out unless -m names them."""
    if "nightly" not in config.getoption("markexpr"):
        left_out = [item for item in items if item.get_closest_marker("nightly")]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)
    for item in items:
        if not item.get_closest_marker("integration"):
            item.add_marker("unit")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """The tests of a file share a process, as their fixtures are made once; all files with an engine share one, as two
    engine runs at once can exhaust the memory.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        @cache  # noqa: B019 - one scheduler a run
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "engines" if "mark.integration" in (ROOT / file).read_text(encoding="utf-8") else file

    return ByFile(config, log)


@pytest.fixture(autouse=True)
def _in_repository_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.fixture
def serve() -> Iterator[Callable[[FastAPI], str]]:
    """Starts ASGI applications on loopback; all are stopped at the end of the test."""
    with ExitStack() as running:
        yield lambda app: running.enter_context(serving(app))
