"""The two steps that call models: inference, a model at a time, and judging. Each is a `Run` in the model's folder.

A finished step starts no server; judging starts none for the models under test.
"""

import asyncio
import hashlib
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from evaluation.benchmarks import BenchmarkDialogue, benchmark_files, most_pictures, read_benchmarks
from evaluation.config import EvaluationConfig, ModelConfig, SamplingConfig
from evaluation.multi_turn.inference import ANSWERS, Player, count_ends, infer
from evaluation.multi_turn.judge import PROMPT, Judge, judge_answers
from safer_steer.config import Section
from safer_steer.errors import UserError
from safer_steer.llm import EndpointConfig, LLMClient
from safer_steer.runs import Run
from safer_steer.servers import ServiceConfig, start_services, with_service_urls

WINDOWS, WINDOW_BYTES = 16, 1 << 16


class InferenceFacts(Section):
    """What a model's answers depend on, apart from the benchmark files."""

    model: str
    weights: str | None
    sampling: SamplingConfig
    endpoint: dict[str, Any] | None
    max_model_len: int | None
    limit: int | None


class JudgeFacts(Section):
    """What verdicts depend on, apart from the answers and the prompt."""

    judge: EndpointConfig


def infer_model(config: EvaluationConfig, name: str) -> None:
    """Plays all dialogues that one model has not played yet, on a server that lives only for that."""
    model, folder = config.models[name], Path(config.output, name)
    tasks = read_benchmarks(config.benchmarks, config.limit)
    with Run.open(
        folder,
        _inference_facts(config, model, name),
        stage=f"infer {name}",
        inputs={f"benchmark {key}": path for key, path in benchmark_files(config.benchmarks).items()},
        file="infer.json",
    ) as run:
        if run.finished:
            run.say_finished()
            return
        services, endpoint = _served(config, model, name, tasks)
        with start_services(services, folder / "logs") as urls:
            client = LLMClient(f"evaluated_{name}", with_service_urls(endpoint, urls))
            player = Player(client, config.sampling.seed, config.sampling.system, folder)
            counts = asyncio.run(_infer(player, tasks, config, f"infer {name}"))
        rejected = counts.as_dict()
        del rejected["kept"]
        run.finish(rejected | count_ends(folder / ANSWERS), client.stats())


async def _infer(player: Player, tasks: list[BenchmarkDialogue], config: EvaluationConfig, label: str) -> Any:
    try:
        await player.client.check()
        return await infer(
            player, tasks, label=label, concurrency=config.concurrency, max_transport_rate=config.max_transport_rate
        )
    finally:
        await player.client.close()


def judge_models(config: EvaluationConfig) -> None:
    """Judges the answers of all models; the judge's service, if any, is started once, and only when there is something
    to judge.
    """
    judge = config.judge.from_environment("judge")
    urls: dict[str, str] | None = None
    with ExitStack() as services:
        for name in config.models:
            with _judge_run(config, judge, name) as run:
                if run.finished:
                    run.say_finished()
                    continue
                if urls is None:
                    servers = start_services(_referenced(config, judge), Path(config.output, "logs"))
                    urls = services.enter_context(servers)
                client = LLMClient("judge", with_service_urls(judge, urls))
                judging = Judge(client, run.folder, config.max_unscored_rate)
                run.finish(asyncio.run(_judge(judging, config, f"judge {name}")), client.stats())


def _judge_run(config: EvaluationConfig, judge: EndpointConfig, name: str) -> Run:
    folder = Path(config.output, name)
    inputs, prompts = {"answers": folder / ANSWERS}, {"judge": PROMPT.hash}
    return Run.open(
        folder, JudgeFacts(judge=judge), stage=f"judge {name}", inputs=inputs, prompts=prompts, file="judge.json"
    )


async def _judge(judge: Judge, config: EvaluationConfig, label: str) -> dict[str, int]:
    try:
        await judge.client.check()
        return await judge_answers(
            judge,
            label=label,
            concurrency=judge.client.config.concurrency,
            max_transport_rate=config.max_transport_rate,
        )
    finally:
        await judge.client.close()


def _inference_facts(config: EvaluationConfig, model: ModelConfig, name: str) -> InferenceFacts:
    served = model.checkpoint is not None
    return InferenceFacts(
        model=model.checkpoint or model.endpoint.model,
        weights=weights_fingerprint(model.checkpoint) if served else None,
        sampling=config.sampling,
        endpoint=None if served else model.endpoint.model_dump(mode="json"),
        max_model_len=config.serving.max_model_len if served else None,
        limit=config.limit,
    )


def _served(
    config: EvaluationConfig, model: ModelConfig, name: str, tasks: list[BenchmarkDialogue]
) -> tuple[dict[str, ServiceConfig], EndpointConfig]:
    """The services to start for a model, and its endpoint with the sampling filled in where the endpoint leaves it
    open.
    """
    sampling = config.sampling.model_dump(include={"temperature", "top_p", "max_tokens"})
    if model.checkpoint is None:
        endpoint = model.endpoint
        open_values = {key: value for key, value in sampling.items() if getattr(endpoint, key) is None}
        return _referenced(config, endpoint), endpoint.model_copy(update=open_values)
    pictures = most_pictures(task.dialogue for task in tasks)
    service = config.serving.service(name, model.checkpoint, pictures)
    endpoint = EndpointConfig(model=name, base_url=f"service:{name}", concurrency=config.concurrency, **sampling)
    return {name: service}, endpoint


def _referenced(config: EvaluationConfig, endpoint: EndpointConfig) -> dict[str, ServiceConfig]:
    """Of the configured services the one that an endpoint names."""
    name = endpoint.base_url.removeprefix("service:") if isinstance(endpoint.base_url, str) else None
    return {name: config.services[name]} if name in config.services else {}


def weights_fingerprint(checkpoint: str) -> str | None:
    """A hash that changes when a checkpoint is trained anew: names, sizes and evenly spaced pieces of its weight files.

    None for a hub id, which names fixed weights by itself.

    Raises:
        UserError: the folder is missing its config or its weights.
    """
    folder = Path(checkpoint)
    if not folder.exists() and not checkpoint.startswith((".", "/")) and checkpoint.count("/") == 1:
        return None
    files = sorted(folder.glob("*.safetensors")) if (folder / "config.json").is_file() else []
    if not files:
        raise UserError(
            f"no checkpoint at {checkpoint}: needs config.json and *.safetensors; run the stage that writes it, "
            "or correct models"
        )
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for path in files:
        size = path.stat().st_size
        digest.update(f"{path.name} {size}".encode())
        with path.open("rb") as file:
            for window in range(WINDOWS):
                file.seek(max(0, size - WINDOW_BYTES) * window // (WINDOWS - 1))
                digest.update(file.read(WINDOW_BYTES))
    return digest.hexdigest()[:16]
