"""A stage's config, recognised by its keys, as the rehearsal sees it: model, sizes, data, roles, needs."""

import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf
from pydantic import BaseModel

from data_construction.config import DataConfig
from evaluation.benchmarks import benchmark_files
from evaluation.config import EvaluationConfig, judge_role
from evaluation.needs import needs as evaluation_needs
from rehearsal.settings import Settings
from safer_steer.config import load_config, load_raw, with_base
from safer_steer.errors import UserError
from safer_steer.llm import EndpointConfig
from safer_steer.machine import Needs
from safer_steer.model_shape import parameters
from safer_steer.servers import ServiceConfig
from training import ablations
from training.grpo.config import bare_tree, known
from training.grpo.config import load_config as load_grpo
from training.grpo.needs import needs as grpo_needs
from training.sft.config import SftConfig
from training.sft.needs import needs as sft_needs

Kind = Literal["data_construction", "sft", "grpo", "evaluation"]
# Keys that only this stage's configs have; Stage III's extend verl's and have a list of defaults.
MARKS: dict[Kind, tuple[str, ...]] = {
    "grpo": ("defaults",),
    "sft": ("max_length", "training"),
    "evaluation": ("benchmarks", "judge"),
    "data_construction": ("sources", "roles"),
}
SCHEMAS: dict[Kind, type[BaseModel]] = {
    "sft": SftConfig,
    "evaluation": EvaluationConfig,
    "data_construction": DataConfig,
}

LARGE = 1e8  # parameters


@dataclass(frozen=True)
class Subject:
    """One stage to rehearse.

    Attributes:
        kind: the stage.
        path: its config file.
        config: validated.
        raw: what a config derived from it starts from: plain data, or Stage III's tree with its interpolations.
        needs: what the real run needs of a machine.
        device: where the rehearsal computes.
        model: checkpoint that the stage starts from; None where it has none.
        names: all names that may say the model's family.
        length: tokens of its longest sequence.
        max_pixels: largest picture shown to the model, px; None where the stage shows it none.
        data: files of dialogues that it reads.
        roles: models that it calls, with the environment's addresses.
        services: servers that it starts.
    """

    kind: Kind
    path: str
    config: Any
    raw: Any
    needs: Needs
    device: str
    model: str | None
    names: list[str]
    length: int
    max_pixels: int | None
    data: list[Path]
    roles: dict[str, EndpointConfig]
    services: dict[str, ServiceConfig] = field(default_factory=dict)
    replaced: bool = False  # whether a CPU takes the place of the real run's GPUs, so that sizes shrink

    @property
    def miniature(self) -> bool:
        """Whether it is of the miniature world, whose teacher knows its own pictures only."""
        commands = [" ".join(service.command or []) for service in self.services.values()]
        return Path(self.path).stem == "miniature" or any("miniature.teacher" in command for command in commands)


def subjects(paths: list[str], settings: Settings, overrides: list[str]) -> list[Subject]:
    """The stages of the configs, each with the overrides whose keys it knows.

    Raises:
        UserError: a config is of no stage, or wrong, or nobody knows an override's key.
    """
    kinds = [kind_of(path) for path in paths]
    taken: set[str] = set()
    found = []
    for path, kind in zip(paths, kinds, strict=True):
        known = key_test(kind, path)
        mine = [item for item in overrides if known(item)]
        taken |= set(mine)
        found.append(BUILDERS[kind](path, mine, settings))
    if lost := [item for item in overrides if item not in taken]:
        raise UserError(f"{', '.join(lost)}: no given config has this key; rehearsal's own begin with rehearse.")
    return found


def kind_of(path: str) -> Kind:
    """The stage that a config file is of.

    Raises:
        UserError: of none.
    """
    raw = with_base(Path(path))
    for kind, marks in MARKS.items():
        if isinstance(raw, DictConfig) and all(mark in raw for mark in marks):
            return kind
    raise UserError(f"{path}: of no stage; give configs of {', '.join(MARKS)} (configs/, docs/rehearsal.md)")


def key_test(kind: Kind, path: str) -> Callable[[str], bool]:
    """Whether an override's key is one of this config."""
    if kind == "grpo":
        tree = bare_tree(path)

        def in_tree(item: str) -> bool:
            key = item.partition("=")[0]
            if key.startswith("+") or key == "ablation" or key.startswith("safer_steer."):
                return True
            return known(key, tree) and not isinstance(OmegaConf.select(tree, key), DictConfig)

        return in_tree
    words = (ablations.KEY,) if kind == "sft" else ()
    return lambda item: item.startswith(words) or in_schema(SCHEMAS[kind], item.partition("=")[0].split("."))


def in_schema(schema: Any, parts: list[str]) -> bool:
    """Whether a dotted key is in a schema; below a dict any name is."""
    if not parts:
        return True
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        field_ = schema.model_fields.get(parts[0])
        return field_ is not None and in_schema(field_.annotation, parts[1:])
    if typing.get_origin(schema) is dict:
        return in_schema(typing.get_args(schema)[1], parts[1:])
    return any(in_schema(part, parts) for part in typing.get_args(schema) if part is not type(None))


def _sft(path: str, overrides: list[str], settings: Settings) -> Subject:
    overrides = ablations.expand("sft", overrides)
    config = load_config(SftConfig, path, overrides)
    return Subject(
        "sft",
        path,
        config,
        load_raw(path, overrides),
        sft_needs(config),
        settings.device or config.device,
        config.model,
        [config.model],
        config.max_length,
        config.images.max_pixels,
        [Path(config.data)],
        {},
        replaced=(settings.device or config.device) != config.device,
    )


def _grpo(path: str, overrides: list[str], settings: Settings) -> Subject:
    loaded = load_grpo(path, overrides)
    config, verl = loaded.config, loaded.config.verl
    model = verl["actor_rollout_ref"]["model"]["path"]
    return Subject(
        "grpo",
        path,
        config,
        loaded.tree,
        grpo_needs(config),
        settings.device or verl["trainer"]["device"],
        model,
        [model, config.safer_steer.base_model or ""],
        verl["data"]["max_prompt_length"] + verl["data"]["max_response_length"],
        config.safer_steer.data.max_pixels,
        [Path(config.safer_steer.data.source)],
        {"tutor": config.safer_steer.tutor},
        config.safer_steer.services,
        replaced=(settings.device or verl["trainer"]["device"]) != verl["trainer"]["device"],
    )


def _evaluation(path: str, overrides: list[str], settings: Settings) -> Subject:
    config = load_config(EvaluationConfig, path, overrides)
    checkpoints = [model.checkpoint for model in config.models.values() if model.checkpoint]
    roles = {judge_role(name): judge.from_environment(judge_role(name)) for name, judge in config.all_judges().items()}
    if config.attacker:
        roles["tutor"] = config.attacker.from_environment("tutor")
    needs = evaluation_needs(config)
    return Subject(
        "evaluation",
        path,
        config,
        load_raw(path, overrides),
        needs,
        settings.device or needs.device,
        checkpoints[-1] if checkpoints else None,
        checkpoints,
        config.serving.max_model_len,
        config.max_pixels,
        list(benchmark_files(config.benchmarks).values()),
        roles,
        config.services,
        # It has no key for the device; asked for a CPU, a model of billions of parameters shrinks.
        replaced=settings.device == "cpu" and max((parameters(name) or 0 for name in checkpoints), default=0) > LARGE,
    )


def _data_construction(path: str, overrides: list[str], settings: Settings) -> Subject:
    config = load_config(DataConfig, path, overrides)
    roles = {role: config.roles[role].from_environment(role) for role in config.roles_needed()}
    served = [service.vllm.checkpoint for service in config.services.values() if service.vllm]
    needs = Needs("cpu", config.folder)
    return Subject(
        "data_construction",
        path,
        config,
        load_raw(path, overrides),
        needs,
        "cpu",
        None,
        served,
        0,
        None,
        [],
        roles,
        config.services,
    )


BUILDERS: dict[Kind, Callable[[str, list[str], Settings], Subject]] = {
    "sft": _sft,
    "grpo": _grpo,
    "evaluation": _evaluation,
    "data_construction": _data_construction,
}
