"""`serve(app)`: a real HTTP server in a thread; gives its base URL ending in /v1."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from fastapi import FastAPI

from http_doubles import serving

os.environ.pop("SAFER_STEER_SPEAKER", None)  # commands that tests start speak for themselves


@pytest.fixture
def serve() -> Iterator[Callable[[FastAPI], str]]:
    """Starts ASGI applications on loopback; all are stopped at the end of the test."""
    with ExitStack() as running:
        yield lambda app: running.enter_context(serving(app))
