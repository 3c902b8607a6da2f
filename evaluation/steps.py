"""The two steps that call models: inference, a model at a time, and judging. Each is a `Run` in the model's folder.

A finished step starts no server; judging starts none for the models under test.
"""

import asyncio
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pydantic import SerializerFunctionWrapHandler, model_serializer

from evaluation.benchmarks import BenchmarkDialogue, benchmark_files, most_pictures, read_benchmarks
from evaluation.config import EvaluationConfig, ModelConfig, SamplingConfig, judge_role, role_of
from evaluation.multi_turn.adaptive import AdaptiveTutor
from evaluation.multi_turn.inference import ANSWERS, Player, count_adapted, count_ends, infer
from evaluation.multi_turn.judge import MAIN_JUDGE, PROMPT, Judge, judge_answers, judge_file
from evaluation.needs import needs
from evaluation.pictures import ShownPictures, served_size
from safer_steer.config import Section
from safer_steer.errors import UserError
from safer_steer.llm import EndpointConfig, LLMClient
from safer_steer.machine import require
from safer_steer.picture_digest import dialogue_pictures
from safer_steer.picture_size import PictureSize
from safer_steer.prompts import Prompt
from safer_steer.row_files import BadRow
from safer_steer.runs import Run, is_finished
from safer_steer.servers import ServiceConfig, referenced, start_services, with_service_urls
from safer_steer.weights import is_hub_id, weights_fingerprint

INFER_RECORD, JUDGE_RECORD = "infer.json", "judge.json"
PICTURES = "pictures"  # of the output folder: the benchmarks' pictures as the models see them
# Arguments of the server for speed and logs: answers do not depend on them, so they may differ when resuming.
NOT_ANSWERS = ("--disable-log-stats", "--enable-prefix-caching", "--no-enable-prefix-caching")


class InferenceFacts(Section):
    """What a model's answers depend on, apart from the benchmark files."""

    model: str
    weights: str | None
    sampling: SamplingConfig
    endpoint: dict[str, Any] | None
    max_model_len: int | None
    max_pixels: int  # of a picture shown to the model
    limit: int | None
    arguments: list[str] = []  # of the server of a checkpoint, without `NOT_ANSWERS`

    @model_serializer(mode="wrap")
    def _without_no_arguments(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As the records of before: they hold no arguments."""
        return {key: value for key, value in handler(self).items() if key != "arguments" or value}


class AdaptiveFacts(InferenceFacts):
    """In adaptive mode the tutor matters too."""

    tutor: EndpointConfig


class JudgeFacts(Section):
    """What verdicts depend on, apart from the answers and the prompt."""

    judge: EndpointConfig


def infer_model(config: EvaluationConfig, name: str) -> None:
    """Plays all dialogues that one model has not played yet, on a server that lives only for that."""
    model, folder = model_under_test(config, name), Path(config.output, name)
    files, bad = benchmark_files(config.benchmarks), list[BadRow]()
    tasks = read_benchmarks(config.benchmarks, config.limit, bad)
    tutor = config.tutor.from_environment("tutor") if config.mode == "adaptive" else None
    prompt = _tutor_prompt(tutor.prompt) if tutor else None
    # Before the record is written: benchmark files with unusable pictures can be corrected and the same command given.
    shown = None if is_finished(folder / INFER_RECORD) else _shown(config, name, tasks)
    with Run.open(
        folder,
        _inference_facts(config, name, model, tutor),
        stage=f"infer {name}",
        inputs={f"benchmark {key}": path for key, path in files.items()},
        contents={f"pictures of {key}": dialogue_pictures(path) for key, path in files.items()},
        prompts={"tutor": prompt.hash} if prompt else None,
        file=INFER_RECORD,
    ) as run:
        if run.finished or shown is None:
            run.say_finished()
            return
        pictures, limit = shown
        require(needs(config))
        services, endpoint = _served(config, model, name, tasks, limit)
        services |= referenced(config.services, [tutor]) if tutor else {}
        with start_services(services, folder / "logs") as urls:
            client = LLMClient(role_of("evaluated", name), with_service_urls(endpoint, urls))
            writer = AdaptiveTutor(LLMClient("tutor", with_service_urls(tutor, urls)), prompt) if tutor else None
            sampling = config.sampling
            player = Player(
                client,
                sampling.seed,
                sampling.system,
                folder,
                pictures,
                writer,
                tuple(sampling.reasoning_tags),
                sampling.reasoning_in_history,
            )
            try:
                counts = asyncio.run(_infer(player, tasks, bad, config, f"infer {name}"))
            finally:
                run.add_usage({client.role: client.stats()} | ({"tutor": writer.client.stats()} if writer else {}))
        rejected = counts.as_dict()
        del rejected["kept"]
        adapted = count_adapted(folder / ANSWERS) if writer else {}
        run.finish(rejected | count_ends(folder / ANSWERS) | adapted)


def _shown(config: EvaluationConfig, name: str, tasks: list[BenchmarkDialogue]) -> tuple[ShownPictures, int | None]:
    """All pictures as a model sees them, read and resized, and the limit to give its server."""
    size, limit = picture_size(config, name)
    pictures = ShownPictures(size, Path(config.output, PICTURES))
    pictures.prepare(tasks, f"infer {name}")
    return pictures, limit


def picture_size(config: EvaluationConfig, name: str) -> tuple[PictureSize, int | None]:
    """The sizes at which a model sees pictures, and the limit to give its server, where this run starts one.

    Raises:
        UserError: its checkpoint was trained with another limit, and the config does not say so for this model.
    """
    model, most = config.models[name], config.max_pixels_of(name)
    if model.checkpoint is None:
        return PictureSize(max_pixels=most), None
    return served_size(model.checkpoint, most, agree=model.max_pixels is None)


def _tutor_prompt(path: str) -> Prompt:
    if not Path(path).is_file():
        raise UserError(f"tutor.prompt: file not found: {path}; name the tutor's template, a .jinja file")
    return Prompt(path)


async def _infer(
    player: Player, tasks: list[BenchmarkDialogue], bad: list[BadRow], config: EvaluationConfig, label: str
) -> Any:
    clients = [player.client, *([player.tutor.client] if player.tutor else [])]
    try:
        for client in clients:
            await client.check()
        return await infer(
            player,
            tasks,
            bad,
            label=label,
            concurrency=config.concurrency,
            max_transport_rate=config.max_transport_rate,
        )
    finally:
        for client in clients:
            await client.close()


def judge_models(config: EvaluationConfig) -> None:
    """Judges the answers of all models by every judge; answers are never asked for anew.

    A judge's service, if any, is started once, and only when there is something to judge.
    """
    for judge, endpoint in config.all_judges().items():
        role = judge_role(judge)
        endpoint = endpoint.from_environment(role)
        urls: dict[str, str] | None = None
        with ExitStack() as services:
            for name in config.models:
                label = f"judge {name}" if judge == MAIN_JUDGE else f"judge {name} by {judge}"
                with _judge_run(config, endpoint, name, judge, label) as run:
                    if run.finished:
                        run.say_finished()
                        continue
                    if urls is None:
                        servers = start_services(referenced(config.services, [endpoint]), Path(config.output, "logs"))
                        urls = services.enter_context(servers)
                    client = LLMClient(role, with_service_urls(endpoint, urls))
                    judging = Judge(client, run.folder, config.max_unscored_rate, judge)
                    try:
                        counts = asyncio.run(_judge(judging, config, label))
                    finally:
                        run.add_usage({role: client.stats()})
                    run.finish(counts)


def set_variables(role: str) -> list[str]:
    """The environment's variables that are set and replace a role's address or model of the config."""
    names = (f"{role.upper()}_API_BASE_URL", f"{role.upper()}_MODEL")
    return [name for name in names if os.environ.get(name, "").strip()]


def model_under_test(config: EvaluationConfig, name: str) -> ModelConfig:
    """A model of the config, with the environment's address and model in place of its endpoint's.

    Raises:
        UserError: the environment names another address or model for a checkpoint, which has a server of its own.
    """
    model, role = config.models[name], role_of("evaluated", name)
    if model.endpoint is not None:
        return model.model_copy(update={"endpoint": model.endpoint.from_environment(role)})
    if found := set_variables(role):
        raise UserError(
            f"{' and '.join(found)} of the environment: model {name} is a checkpoint ({model.checkpoint}), which this "
            f"run serves itself; unset it, or give models.{name} an endpoint in place of the checkpoint"
        )
    return model


def _judge_run(config: EvaluationConfig, endpoint: EndpointConfig, name: str, judge: str, label: str) -> Run:
    folder = Path(config.output, name)
    record = judge_file(JUDGE_RECORD, judge)
    try:
        return Run.open(
            folder,
            JudgeFacts(judge=endpoint),
            stage=label,
            inputs={"answers": folder / ANSWERS},
            prompts={"judge": PROMPT.hash},
            file=record,
        )
    except UserError as error:
        if not (folder / record).is_file() or "changed:" not in str(error):
            raise
        raise UserError(
            f"{error} (to judge the same answers by another judge beside the old one, name it: "
            "judges.NAME={...} report.judge=NAME)"
        ) from error


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


def _inference_facts(
    config: EvaluationConfig, name: str, model: ModelConfig, tutor: EndpointConfig | None
) -> InferenceFacts:
    served = model.checkpoint is not None
    facts = InferenceFacts(
        model=model.checkpoint or model.endpoint.model,
        weights=weights_fingerprint(model.checkpoint) if served and not is_hub_id(model.checkpoint) else None,
        sampling=config.sampling.for_checkpoint() if served else config.sampling,
        endpoint=None if served else model.endpoint.model_dump(mode="json"),
        max_model_len=config.serving.max_model_len if served else None,
        max_pixels=config.max_pixels_of(name),
        limit=config.limit,
        arguments=[item for item in config.serving.arguments if item not in NOT_ANSWERS] if served else [],
    )
    if tutor is None:
        return facts
    plain = EndpointConfig.model_validate(tutor.model_dump(exclude={"prompt"}))
    return AdaptiveFacts(**facts.model_dump(), tutor=plain)


def _served(
    config: EvaluationConfig, model: ModelConfig, name: str, tasks: list[BenchmarkDialogue], max_pixels: int | None
) -> tuple[dict[str, ServiceConfig], EndpointConfig]:
    """The services to start for a model, and its endpoint with the sampling filled in where the endpoint leaves it
    open.
    """
    settings = config.sampling if model.checkpoint is None else config.sampling.for_checkpoint()
    sampling = settings.model_dump(include={"temperature", "top_p", "max_tokens"})
    if model.checkpoint is None:
        endpoint = model.endpoint
        open_values = {key: value for key, value in sampling.items() if getattr(endpoint, key) is None}
        open_values["extra_body"] = settings.extra_body() | endpoint.extra_body
        return referenced(config.services, [endpoint]), endpoint.model_copy(update=open_values)
    pictures = most_pictures(task.dialogue for task in tasks)
    service = config.serving.service(name, model.checkpoint, pictures, max_pixels)
    endpoint = EndpointConfig(
        model=name,
        base_url=f"service:{name}",
        concurrency=config.concurrency,
        extra_body=settings.extra_body(),
        **sampling,
    )
    return {name: service}, endpoint
