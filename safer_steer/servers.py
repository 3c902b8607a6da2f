"""Servers a run starts and always stops: a free port, a child that is alive, and our model's name at /v1/models."""

import importlib.metadata
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Self

import httpx
from pydantic import Field, field_validator, model_validator

from safer_steer.config import Section
from safer_steer.errors import UserError
from safer_steer.llm.config import EndpointConfig
from safer_steer.secrets import refuse_credentials

STOP_GRACE_S = 15.0
# vLLM on a CPU: a small cache, plain torch kernels, one thread an operation (two cores run two processes better than
# two threads).
VLLM_CPU_ENV = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_SGL_KERNEL": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
}


class VllmConfig(Section):
    """A checkpoint to serve with vLLM."""

    checkpoint: str
    max_model_len: Annotated[int, Field(ge=16)]  # tokens, prompt and answers together
    max_num_seqs: Annotated[int, Field(ge=1)] = 64
    images_per_prompt: Annotated[int, Field(ge=1)] = 1
    tensor_parallel: Annotated[int, Field(ge=1)] = 1
    data_parallel: Annotated[int, Field(ge=1)] = 1
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.9
    arguments: list[str] = []  # passed on to vLLM as they are

    _no_credentials = field_validator("arguments")(refuse_credentials)


class ServiceConfig(Section):
    """A server to start for the run: a `command` whose items may contain "{port}", or a checkpoint to serve with
    `vllm`.
    """

    serves: str  # the model name that must appear at /v1/models
    command: list[str] | None = None
    vllm: VllmConfig | None = None
    env: dict[str, str] = {}
    startup_s: Annotated[float, Field(gt=0)] = 600.0

    _no_credentials = field_validator("command", "env")(refuse_credentials)

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.command is None) == (self.vllm is None):
            raise ValueError("give exactly one of command and vllm")
        return self


def with_service_urls(endpoint: EndpointConfig, urls: dict[str, str]) -> EndpointConfig:
    """Replaces every base URL "service:NAME" by the address of the started service.

    Raises:
        UserError: no service of that name was started.
    """
    names = [url.removeprefix("service:") for url in endpoint.urls() if url.startswith("service:")]
    if missing := [name for name in names if name not in urls]:
        raise UserError(
            f"base_url service:{missing[0]}: no such service; configured: {', '.join(urls) or 'none'}; "
            "add it under services:"
        )
    if not names:
        return endpoint
    found = [urls[url.removeprefix("service:")] if url.startswith("service:") else url for url in endpoint.urls()]
    return endpoint.model_copy(update={"base_url": found[0] if isinstance(endpoint.base_url, str) else found})


@contextmanager
def start_services(services: dict[str, ServiceConfig], log_dir: str | Path) -> Iterator[dict[str, str]]:
    """Starts all services at once, waits until each answers, yields name -> base URL, and stops them whatever happens.

    Raises:
        UserError: a server ended early or did not serve its model in time (the message has the log's last lines).
    """
    with ExitStack() as stack:
        started = {
            name: stack.enter_context(_process(name, config, Path(log_dir))) for name, config in services.items()
        }
        for server in started.values():
            server.wait_ready()
        yield {name: server.url for name, server in started.items()}


@contextmanager
def _process(name: str, config: ServiceConfig, log_dir: Path) -> Iterator["_Server"]:
    server = _Server(name, config, log_dir)
    try:
        yield server
    finally:
        server.stop()


class _Server:
    def __init__(self, name: str, config: ServiceConfig, log_dir: Path):
        self.name, self.config = name, config
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/v1"
        log_dir.mkdir(parents=True, exist_ok=True)
        self.log = log_dir / f"{name}.log"
        command, env = _command(config)
        command = [item.replace("{port}", str(self.port)) for item in command]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-S", str(Path(__file__).with_name("watchdog.py")), *command],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **env, **config.env},
                start_new_session=True,
            )

    def wait_ready(self) -> None:
        """Waits until the child itself serves our model: alive, answering, and naming it."""
        deadline = time.monotonic() + self.config.startup_s
        seen: list[str] = []
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise UserError(
                    f"server {self.name} ended with code {self.process.returncode} while starting; {self._tail()}"
                )
            try:
                answer = httpx.get(f"{self.url}/models", timeout=5.0, trust_env=False)
                seen = [model["id"] for model in answer.json()["data"]]
                if self.config.serves in seen:
                    return
            except (httpx.HTTPError, ValueError, KeyError, TypeError):
                pass
            time.sleep(0.25)
        raise UserError(
            f"server {self.name} did not serve {self.config.serves!r} within {self.config.startup_s:.0f} s "
            f"(models seen: {seen or 'none'}); {self._tail()}"
        )

    def _tail(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
        return f"log {self.log} ends: {' | '.join(lines) or '(empty)'}"

    def stop(self) -> None:
        """Ends the server and everything it started."""
        for number, wait in ((signal.SIGTERM, STOP_GRACE_S), (signal.SIGKILL, STOP_GRACE_S)):
            try:
                os.killpg(self.process.pid, number)
            except ProcessLookupError:
                pass
            try:
                self.process.wait(wait)
            except subprocess.TimeoutExpired:
                continue
            try:
                os.killpg(self.process.pid, signal.SIGKILL)  # whatever outlived its parent
            except ProcessLookupError:
                pass
            return


def free_port() -> int:
    """A TCP port on loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _command(config: ServiceConfig) -> tuple[list[str], dict[str, str]]:
    if config.vllm is not None:
        return _vllm_command(config.vllm, config.serves)
    return [sys.executable if item == "python" else item for item in config.command or []], {}


def _vllm_command(vllm: VllmConfig, serves: str) -> tuple[list[str], dict[str, str]]:
    if not Path(vllm.checkpoint, "config.json").is_file() and Path(vllm.checkpoint).exists():
        raise UserError(f"{vllm.checkpoint} holds no config.json; give a Hugging Face model folder or hub id")
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1", "--port", "{port}"]
    command += [
        "--model",
        vllm.checkpoint,
        "--served-model-name",
        serves,
        "--max-model-len",
        str(vllm.max_model_len),
    ]
    command += [
        "--max-num-seqs",
        str(vllm.max_num_seqs),
        "--limit-mm-per-prompt",
        f'{{"image": {vllm.images_per_prompt}, "video": 0}}',
    ]
    command += ["--tensor-parallel-size", str(vllm.tensor_parallel), "--data-parallel-size", str(vllm.data_parallel)]
    # A local folder needs no hub; without a network its look-ups would hold up the start for minutes.
    offline = {"HF_HUB_OFFLINE": "1"} if Path(vllm.checkpoint).is_dir() else {}
    if has_cpu_engine():
        # Seeded requests crash vLLM 0.24's CPU attention when prompts are prefilled in chunks.
        command += ["--dtype", "float32", "--enforce-eager", "--no-enable-chunked-prefill"]
        return [*command, *vllm.arguments], offline | VLLM_CPU_ENV
    return [*command, "--gpu-memory-utilization", str(vllm.gpu_memory_utilization), *vllm.arguments], offline


def has_cpu_engine() -> bool:
    """True when the CPU build of vLLM is installed (distribution `vllm-cpu`)."""
    try:
        importlib.metadata.version("vllm-cpu")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
