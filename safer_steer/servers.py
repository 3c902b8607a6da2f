"""Servers a run starts and always stops: a free port, a child that is alive, and our model's name at /v1/models."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Self

import httpx
from pydantic import Field, field_validator, model_validator

from safer_steer.config import Section
from safer_steer.deaths import MemoryLog, cause_of_death, signal_of
from safer_steer.errors import UserError
from safer_steer.failures import AGAIN, is_out_of_memory
from safer_steer.llm.config import EndpointConfig
from safer_steer.packages import installed_version
from safer_steer.secrets import refuse_credentials
from safer_steer.server_guard import ServerGuard
from safer_steer.weights import is_hub_id

STOP_GRACE_S = 15.0
DYING_S = 2.0
STARTUP_S = 1800.0  # for a server that hangs: one that ends is seen at once, and a busy machine may take long
PORTS_TRIED = 3
LOG_END_BYTES = 64 * 1024
# Arguments of vLLM for speed and logs: answers do not depend on them, so they may differ when a run is resumed.
NOT_ANSWERS = ("--disable-log-stats", "--enable-prefix-caching", "--no-enable-prefix-caching")
_PORT_TAKEN = re.compile(r"address already in use|errno 98\b", re.IGNORECASE)
# vLLM on a CPU, in a server and in GRPO: the model in the process of the engine; nothing compiled (10 s of every start,
# for a sampler that is no faster); plain torch kernels; one thread an operation, since two processes on two cores are
# faster than two threads in one (measured 2,499 against ~1,250 tokens/s).
VLLM_CPU_ENV = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "TORCH_COMPILE_DISABLE": "1",
    "VLLM_CPU_SGL_KERNEL": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
}
SERVER_CPU_ENV = VLLM_CPU_ENV | {"VLLM_CPU_KVCACHE_SPACE": "1"}  # GiB: a small cache; GRPO sets its own


class VllmConfig(Section):
    """A checkpoint to serve with vLLM."""

    checkpoint: str
    """Folder or hub id."""
    max_model_len: Annotated[int, Field(ge=16)]
    """Tokens, prompt and answers together."""
    max_num_seqs: Annotated[int, Field(ge=1)] = 64
    """Answers generated at once."""
    images_per_prompt: Annotated[int, Field(ge=1)] = 1
    """Pictures of one conversation, at most."""
    max_pixels: Annotated[int, Field(ge=1)] | None = None
    """Px of one picture, of the Qwen-VL family only; null: the checkpoint's own limit, for which room is then reserved.
    """
    tensor_parallel: Annotated[int, Field(ge=1)] = 1
    """GPUs that share one copy of the model."""
    data_parallel: Annotated[int, Field(ge=1)] = 1
    """Copies of the model."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Share of each GPU's memory."""
    arguments: list[str] = []
    """Passed on to vLLM as they are."""

    _no_credentials = field_validator("arguments")(refuse_credentials)


class ServiceConfig(Section):
    """A server to start for the run: a `command` whose items may contain "{port}", or a checkpoint to serve with
    `vllm`.
    """

    serves: str
    """The model name that must appear at /v1/models."""
    command: list[str] | None = None
    """Items may contain {port}; `python` is this Python."""
    vllm: VllmConfig | None = None
    """A checkpoint to serve in place of a command."""
    env: dict[str, str] = {}
    """Variables added to its environment."""
    startup_s: Annotated[float, Field(gt=0)] = STARTUP_S
    """Seconds until it must serve its model."""
    silent_s: Annotated[float, Field(gt=0)] = 300.0
    """Without an answer to anything, after which the run is ended."""

    _no_credentials = field_validator("command", "env")(refuse_credentials)

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.command is None) == (self.vllm is None):
            raise ValueError("give exactly one of command and vllm")
        return self

    def facts(self) -> dict[str, Any]:
        """What its answers depend on, but the weights of a checkpoint in a folder."""
        if self.vllm is None:
            return {"command": self.command}
        facts = self.vllm.model_dump(include={"max_model_len", "max_pixels"})
        facts |= {"checkpoint": self.vllm.checkpoint} if is_hub_id(self.vllm.checkpoint) else {}
        return facts | {"arguments": [item for item in self.vllm.arguments if item not in NOT_ANSWERS]}


def referenced(services: Mapping[str, ServiceConfig], endpoints: Iterable[EndpointConfig]) -> dict[str, ServiceConfig]:
    """The configured services that some endpoint names.

    Raises:
        UserError: an endpoint names another one.
    """
    urls = [url for endpoint in endpoints for url in endpoint.urls()]
    names = {url.removeprefix("service:") for url in urls if url.startswith("service:")}
    if missing := sorted(names - services.keys()):
        raise UserError(
            f"base_url service:{missing[0]}: no such service; configured: {', '.join(services) or 'none'}; "
            "add it under services:"
        )
    return {name: service for name, service in services.items() if name in names}


def check_services(services: dict[str, ServiceConfig], roles: Mapping[str, EndpointConfig]) -> None:
    """For validators of configs: every role's service is configured, or the environment names another address.

    Raises:
        ValueError: one is not.
    """
    try:
        referenced(services, [endpoint.from_environment(role) for role, endpoint in roles.items()])
    except UserError as error:
        raise ValueError(str(error)) from error


def with_service_urls(endpoint: EndpointConfig, urls: dict[str, str]) -> EndpointConfig:
    """Replaces every base URL "service:NAME", each of which `referenced` found, by the started service's address."""
    found = [urls[url.removeprefix("service:")] if url.startswith("service:") else url for url in endpoint.urls()]
    return endpoint.model_copy(update={"base_url": found[0] if isinstance(endpoint.base_url, str) else found})


@contextmanager
def start_services(services: dict[str, ServiceConfig], log_dir: str | Path) -> Iterator[dict[str, str]]:
    """Starts all services at once, waits until each answers, yields name -> base URL, and stops them whatever happens.

    Raises:
        UserError: a server ended early or did not serve its model in time, ended or fell silent under the run, or the
            run failed and a server had ended before (the message has the log's last lines).
    """
    with starting_services(services, log_dir) as starting:
        yield starting.ready()


@contextmanager
def starting_services(services: dict[str, ServiceConfig], log_dir: str | Path) -> Iterator["Starting"]:
    """As `start_services`, without the waiting, which `Starting.ready` does."""
    starting = Starting()
    started, guard = starting.servers, starting.guard
    try:
        for name, config in services.items():
            started.append(_Server(name, config, Path(log_dir), guard))
        yield starting
    except KeyboardInterrupt:
        if guard.problem is None:
            raise  # a real Ctrl-C
        said = [server.how_it_ended() for server in started if server.exit_code() is not None] or [guard.problem]
        raise UserError(f"{'; '.join(said)}; {AGAIN}") from None
    except UserError as error:
        _wait_for_an_end(started)
        if ended := [server.how_it_ended() for server in started if server.ready and server.exit_code() is not None]:
            raise type(error)(f"{error}; {'; '.join(ended)}") from error
        raise
    finally:
        guard.stop()
        _stop([*started, *starting.others])


class Starting:
    """Servers that were started together."""

    def __init__(self) -> None:
        self.servers: list[_Server] = []
        self.others: list[_Server] = []
        self.guard = ServerGuard(self.servers, MemoryLog())

    def ready(self) -> dict[str, str]:
        """Waits until each answers, and watches them from then on; name -> base URL. To be called once.

        Raises:
            UserError: one ended early or did not serve its model in time.
        """
        for server in self.servers:
            server.wait_ready()
        self.guard.start()
        return {server.name: server.url for server in self.servers}

    def stop_too(self, other: "Starting") -> None:
        """Lets those of another start be stopped in one go with these: a second Ctrl-C ends all of them at once."""
        self.others, other.servers[:] = other.servers[:], []


def _wait_for_an_end(servers: list["_Server"]) -> None:
    """Gives a server that has just died, which calls notice first, the moment that its end takes to be seen."""
    ready, deadline = [server for server in servers if server.ready], time.monotonic() + DYING_S
    while ready and time.monotonic() < deadline and all(server.exit_code() is None for server in ready):
        time.sleep(0.05)


def _stop(servers: list["_Server"]) -> None:
    """Ends the servers and everything they started; after a second Ctrl-C, or the grace, by force."""
    try:
        for server in servers:
            server.send(signal.SIGTERM)
        deadline = time.monotonic() + STOP_GRACE_S
        for server in servers:
            server.wait(max(0.0, deadline - time.monotonic()))
    finally:
        for server in servers:
            server.send(signal.SIGKILL)  # and whatever outlived its parent
        for server in servers:
            server.wait(STOP_GRACE_S)


class _Server:
    def __init__(self, name: str, config: ServiceConfig, log_dir: Path, guard: ServerGuard):
        self.name, self.config, self.ready, self.guard = name, config, False, guard
        self.silent_s = config.silent_s
        log_dir.mkdir(parents=True, exist_ok=True)
        self.log = log_dir / f"{name}.log"
        self._start()

    def _start(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/v1"
        command, env = _command(self.config)
        command = [item.replace("{port}", str(self.port)) for item in command]
        with self.log.open("ab") as log:
            self._log_start = log.tell()  # a log is kept over attempts: only what follows is about this one
            self.process = subprocess.Popen(
                [sys.executable, "-S", str(Path(__file__).with_name("watchdog.py")), str(os.getpid()), *command],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **env, **self.config.env},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Of its watchdog, which started it."""
        return self.process.pid

    def exit_code(self) -> int | None:
        """Its exit status, 128 + N for signal N; None while it runs."""
        return self.process.poll()

    def wait_ready(self) -> None:
        """Waits until the child itself serves our model: alive, answering, and naming it."""
        deadline, ports_left = time.monotonic() + self.config.startup_s, PORTS_TRIED - 1
        seen: list[str] = []
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                if not ports_left or not _PORT_TAKEN.search(self._said()):
                    raise UserError(f"{self.how_it_ended()} (while starting)")
                ports_left -= 1  # somebody took the port after it was found free
                self._start()
            try:
                answer = httpx.get(f"{self.url}/models", timeout=5.0, trust_env=False)
                seen = [model["id"] for model in answer.json()["data"]]
                if self.config.serves in seen and self.process.poll() is None:
                    self.ready = True
                    return
            except (httpx.HTTPError, ValueError, KeyError, TypeError):
                pass
            self.guard.look(self)
            time.sleep(0.25)
        raise UserError(
            f"server {self.name} did not serve {self.config.serves!r} within {self.config.startup_s:.0f} s "
            f"(models seen: {seen or 'none'}); if it is only slow, raise startup_s; {self._tail()}"
        )

    def how_it_ended(self) -> str:
        """Exit code, the log's last lines and, where it ran out of memory, what to change."""
        code, memory = self.process.returncode, self.guard.memory
        said = f"server {self.name} ended with code {code}; {self._tail()}"
        advice = "give it more memory, or a smaller model"
        if self.config.vllm:
            advice = "lower gpu_memory_utilization, max_model_len or max_num_seqs, or raise tensor_parallel"
        if is_out_of_memory(self._said()):
            return f"{said}; it ran out of memory: {advice}"
        if signal_of(code) is not None:
            return f"server {self.name} {cause_of_death(code, memory, advice)}; {self._tail()}"
        if lost := self.guard.lost.get(self.name):
            return f"{said}; before it ended, its process {lost[0]} {cause_of_death(None, memory, advice)}"
        return said

    def _said(self) -> str:
        with self.log.open("rb") as log:
            log.seek(max(self._log_start, self.log.stat().st_size - LOG_END_BYTES))
            return log.read().decode("utf-8", "replace")

    def _tail(self) -> str:
        lines = self._said().strip().splitlines()[-3:]
        return f"log {self.log} ends: {' | '.join(lines) or '(empty)'}"

    def send(self, number: int) -> None:
        """Sends a signal to the server and everything that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def wait(self, seconds: float) -> None:
        """Waits for its end, at most so long."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)


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
    if vllm.max_pixels:
        command += ["--mm-processor-kwargs", f'{{"max_pixels": {vllm.max_pixels}}}']
    command += ["--tensor-parallel-size", str(vllm.tensor_parallel), "--data-parallel-size", str(vllm.data_parallel)]
    # Sampling is what the request says and vLLM's own defaults: a checkpoint's generation_config.json changes nothing.
    command += ["--generation-config", "vllm"]
    # A local folder needs no hub; without a network its look-ups would hold up the start for minutes.
    offline = {"HF_HUB_OFFLINE": "1"} if Path(vllm.checkpoint).is_dir() else {}
    if has_cpu_engine():
        # Seeded requests crash vLLM 0.24's CPU attention when prompts are prefilled in chunks.
        command += ["--dtype", "float32", "--enforce-eager", "--no-enable-chunked-prefill"]
        # The size of the cache is set, so nothing need be known of the memory that the largest pictures take.
        command.append("--skip-mm-profiling")
        return [*command, *vllm.arguments], offline | SERVER_CPU_ENV
    return [*command, "--gpu-memory-utilization", str(vllm.gpu_memory_utilization), *vllm.arguments], offline


def has_cpu_engine() -> bool:
    """True when the CPU build of vLLM is installed (distribution `vllm-cpu`)."""
    return installed_version("vllm-cpu") is not None
