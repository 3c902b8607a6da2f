"""A clock of the tests' own, and one call of a client against a scripted server."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI

from http_doubles import Script
from safer_steer.llm import EndpointConfig, LLMClient, ResponseCache
from safer_steer.llm import retry as retry_module


class FakeClock:
    """Time that passes only by sleeping."""

    def __init__(self):
        self.now, self.slept = 1000.0, []

    def __call__(self) -> float:
        """Seconds."""
        return self.now

    async def sleep(self, seconds: float) -> None:
        """Lets others run, and time pass."""
        self.slept.append(seconds)
        until = self.now + seconds
        await asyncio.sleep(0)
        self.now = max(self.now, until)


@pytest.fixture
def clock() -> FakeClock:
    """A `FakeClock`."""
    return FakeClock()


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back-off of a millisecond."""
    monkeypatch.setattr(retry_module, "BASE_DELAY_S", 0.001)


@pytest.fixture
def ask(serve: Callable[[FastAPI], str], quick_retries: None) -> Callable:
    """Plays a script, or answers, to one call of a client; gives the result, the client and the script."""

    def run(answers: Any, call: Callable, cache: ResponseCache | None = None, **config: Any) -> tuple:
        played = Script(*answers)
        client = LLMClient("judge", EndpointConfig(model="m", base_url=serve(played.app), **config), cache)

        async def main() -> Any:
            try:
                return await call(client)
            finally:
                await client.close()

        return asyncio.run(main()), client, played

    return run
