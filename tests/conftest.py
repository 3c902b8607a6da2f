"""A real HTTP server in a thread, for tests of wire behaviour: the fixture `serve(app)` gives its base URL ending in
/v1.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import uvicorn
from fastapi import FastAPI

from safer_steer.servers import free_port

os.environ.pop("SAFER_STEER_SPEAKER", None)  # commands that tests start speak for themselves


@pytest.fixture
def serve() -> Iterator[Callable[[FastAPI], str]]:
    """Starts ASGI applications on loopback; all are stopped at the end of the test."""
    running: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(app: FastAPI) -> str:
        port = free_port()
        server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="critical"))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        running.append((server, thread))
        deadline = time.monotonic() + 30
        while not server.started and time.monotonic() < deadline:
            time.sleep(0.02)
        return f"http://127.0.0.1:{port}/v1"

    yield start
    for server, thread in running:
        server.should_exit = server.force_exit = True
        thread.join(10)
