"""The config of an evaluation: which models, which benchmarks, how to sample, who judges, where results go."""

import os
import re
from collections import Counter
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from evaluation.multi_turn.aggregate import PassConfig
from safer_steer.answer_format import PLAIN, AnswerFormat
from safer_steer.config import Operational, Section
from safer_steer.errors import UserError
from safer_steer.gpus import visible_gpus
from safer_steer.llm import EndpointConfig
from safer_steer.picture_size import MAX_PIXELS, PixelLimit
from safer_steer.row_choice import Id, Limit, check_choice
from safer_steer.servers import STARTUP_S, ServiceConfig, VllmConfig, check_services
from safer_steer_verl.interactions.safety_tutor import TutorConfig

MAIN_JUDGE = "judge"
ADAPTIVE = "adaptive"  # with mode `both`, the folder of the dialogues whose user turns the tutor writes
TWO_SERVERS = 0.45  # of a GPU's memory, for one of them
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
Share = Annotated[float, Field(ge=0, le=1)]
SAMPLED = ("temperature", "top_p", "max_tokens", "top_k", "repetition_penalty")  # what an endpoint may set too


class ModelConfig(Section):
    """A model under test: a `checkpoint` that is served with vLLM for the run, or an `endpoint` that serves it
    already.
    """

    checkpoint: str | None = None
    endpoint: EndpointConfig | None = None
    title: str | None = None
    """Name in the tables."""
    max_pixels: PixelLimit | None = None
    """Px of a picture shown to this model; null: as for all."""
    answer_format: AnswerFormat | None = None
    """System prompt and tags of this model's answers; null: those that its checkpoint was trained with, else those for
    all. A YAML file (configs/answer_format/) or its content.
    """
    sampling: dict[str, Any] = {}
    """Values of `sampling` that are others for this model."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.checkpoint is None) == (self.endpoint is None):
            raise ValueError("give exactly one of checkpoint and endpoint")
        return self


class SamplingConfig(Section):
    """How the models under test answer. Each turn has its own seed, derived from `seed`, the dialogue and the turn.

    None: a checkpoint, which this run serves itself, samples plainly (see `for_checkpoint`; its generation_config.json
    changes nothing); an endpoint does as it likes.
    """

    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1)] | None = None
    """-1: all words."""
    repetition_penalty: Annotated[float, Field(gt=0)] | None = None
    max_tokens: Annotated[int, Field(ge=1)]
    seed: int = 0
    reasoning_in_history: bool | None = None
    """Whether the thoughts of earlier turns are sent back; null: where the answer format has tags, as in training, and
    else not, as templates drop them.
    """

    def for_checkpoint(self) -> "SamplingConfig":
        """With the value of everything that is None: what is asked of the server, and is recorded."""
        plain = {"top_p": 1.0, "top_k": -1, "repetition_penalty": 1.0}
        return self.model_copy(update={name: value for name, value in plain.items() if getattr(self, name) is None})

    def extra_body(self) -> dict[str, float]:
        """Values that OpenAI's interface does not know, as vLLM takes them."""
        return self.model_dump(include={"top_k", "repetition_penalty"}, exclude_none=True)


class ServingConfig(Section):
    """How checkpoints are served; see `VllmConfig`. The number of pictures a prompt may hold is taken from the data."""

    max_model_len: Annotated[int, Field(ge=16)]
    max_num_seqs: Annotated[int, Field(ge=1)] = 64
    tensor_parallel: Annotated[int, Field(ge=1)] = 1
    data_parallel: Annotated[int, Field(ge=1)] | None = None
    """Copies of the model; null: as many as the GPUs hold."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.9
    arguments: list[str] = []
    startup_s: Annotated[float, Field(gt=0)] = STARTUP_S
    start_ahead: bool = False
    """Whether the next model's server starts while this one's starts and answers; the machine must hold both."""

    @model_validator(mode="after")
    def _room_for_two(self) -> Self:
        if self.start_ahead and self.gpu_memory_utilization > TWO_SERVERS:
            raise ValueError(
                f"start_ahead: two servers share each GPU, so gpu_memory_utilization ({self.gpu_memory_utilization:g}) "
                f"must be at most {TWO_SERVERS}; lower it, or leave start_ahead out"
            )
        return self

    def copies(self) -> int:
        """How many copies of the model share the calls; one where no GPU is visible."""
        return self.data_parallel or max(1, visible_gpus() // self.tensor_parallel)

    def service(self, name: str, checkpoint: str, pictures: int, max_pixels: int | None) -> ServiceConfig:
        """The server of one checkpoint, which serves it under the model's name."""
        values = self.model_dump(exclude={"startup_s", "start_ahead"}) | {"data_parallel": self.copies()}
        vllm = VllmConfig(checkpoint=checkpoint, images_per_prompt=pictures, max_pixels=max_pixels, **values)
        return ServiceConfig(serves=name, vllm=vllm, startup_s=self.startup_s)


class ReportConfig(Section):
    """Where the report goes and what it says besides the numbers."""

    folder: str
    note: str | None = None
    """First line of tables and page."""
    judge: Name = MAIN_JUDGE
    """Whose verdicts the numbers are: "judge", or a name under judges."""
    paper_rows: dict[Name, str] = {}
    """Model name -> the system of the paper to print next to it."""
    splits: dict[str, str] = {}
    """STEER-SFT, STEER-RL -> JSONL file, for Table 1."""
    training: dict[str, str] = {}
    """Title -> run folder of a training stage, for the curves."""
    max_dialogues: Annotated[int, Field(ge=0)] = 5000
    """In the transcript browser; failed ones first."""
    picture_side: Annotated[int, Field(ge=28)] = 320
    """Px, longest side of a picture in the browser."""


class EvaluationConfig(Section):
    """Everything of `configs/evaluation/*.yaml`."""

    root: str
    output: str
    benchmarks: Annotated[list[str], Field(min_length=1)]
    limit: Limit | None = None
    """Dialogues of each benchmark: so many, or a range of places such as 10-20; null: all."""
    ids: list[Id] = []
    """Of the dialogues to play; []: all."""
    repeats: Annotated[int, Field(ge=1)] = 1
    """Samples of each dialogue, each with its own seed."""
    retry: Annotated[Literal["unscored"] | None, Operational] = None
    """`unscored`: asks again for what has no score; what has one is kept."""
    model: dict[str, Any] | None = None
    """A model to test alone, in place of `models` and `report.paper_rows`; its keys are those of models.NAME."""
    mode: Literal["static", "adaptive", "both"] = "static"
    """User turns as in the benchmark, or all but the first written by the tutor; `both`: once so and once so, and the
    main table has the two next to each other.
    """
    tutor: TutorConfig | None = None
    models: Annotated[dict[Name, ModelConfig], Field(min_length=1)]
    max_pixels: PixelLimit = MAX_PIXELS
    """Px of a picture shown to the models, as in their training."""
    min_pixels: PixelLimit | None = None
    """Smaller pictures are enlarged to so many px, for every model; null: only to what a model can see at all."""
    answer_format: AnswerFormat = PLAIN
    """Of models that name none and whose checkpoint says none. A YAML file or its content."""
    sampling: SamplingConfig
    serving: ServingConfig
    judge: EndpointConfig
    judges: dict[Name, EndpointConfig] = {}
    judge_prompt: str = "ours"
    """Of all judges: `ours` (the protocol of App. B with its levels told apart), `printed` (its content as printed), or
    a .jinja template of yours.
    """
    policy: Annotated[str | None, Operational] = None
    """A text file that says what counts as harm, for judges and tutor; its content counts, not where it lies. Null:
    safer_steer/policies/general.md."""
    max_unscored_rate: Share = 0.05
    """Share of a model's turns that may lack a usable verdict before its judging stops; one or two are borne,
    unless they are all or this is 0. Our choice."""
    max_transport_rate: Share = 0.2
    """Share of dialogues, or of turns to judge, that may reach no model before the run stops. Our choice."""
    concurrency: Annotated[int, Field(ge=1)] = 64
    """Dialogues, or turns to judge, in flight."""
    services: dict[Name, ServiceConfig] = {}
    passing: PassConfig = PassConfig()
    report: ReportConfig

    @model_validator(mode="before")
    @classmethod
    def _one_model(cls, data: Any) -> Any:
        if not isinstance(data, dict) or not isinstance(data.get("model"), dict):
            return data
        alone = {"models": {"model": data["model"]}, "model": None}
        if isinstance(data.get("report"), dict):
            alone["report"] = data["report"] | {"paper_rows": {}}
        return data | alone

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        check_choice(self.limit, self.ids)
        if self.mode != "static" and self.tutor is None:
            raise ValueError(f"mode {self.mode} needs a tutor")
        if clash := self.models.keys() & self.services.keys():
            raise ValueError(f"models and services share the name(s) {', '.join(sorted(clash))}; rename one")
        if clash := self.models.keys() & {"logs", "pictures", ADAPTIVE}:
            raise ValueError(f"model {clash.pop()!r}: a folder of that name is used for other things; rename it")
        titles = Counter(map(self.title, self.models))
        if shared := [name for name in self.models if titles[self.title(name)] > 1]:
            raise ValueError(f"models {', '.join(shared)} share a title; give each its own, as tables name them by it")
        if MAIN_JUDGE in self.judges:
            raise ValueError(f"{MAIN_JUDGE!r} is the name of the main judge; give the one under judges another name")
        if self.report.judge not in self.all_judges():
            raise ValueError(f"report.judge is {self.report.judge!r}; judges: {', '.join(self.all_judges())}")
        for name in self.models:
            self.sampling_of(name)
            if (self.min_pixels or 0) * 2 > (most := self.max_pixels_of(name)):
                raise ValueError(f"min_pixels {self.min_pixels}: at most half of max_pixels {most} of model {name}")
        check_services(self.services, self._roles())
        return self

    def _roles(self) -> dict[str, EndpointConfig]:
        """The roles whose endpoints the config names."""
        roles = {judge_role(name): judge for name, judge in self.all_judges().items()}
        roles |= {role_of("evaluated", name): model.endpoint for name, model in self.models.items() if model.endpoint}
        return roles | ({"tutor": self.attacker} if self.attacker else {})

    @property
    def attacker(self) -> TutorConfig | None:
        """The tutor, where it writes user turns."""
        return None if self.mode == "static" else self.tutor

    def parts(self) -> "list[EvaluationConfig]":
        """What is played: this evaluation; with mode `both` the static one and, in a folder of its output, the adaptive
        one.
        """
        if self.mode != "both":
            return [self]
        adaptive = {"mode": "adaptive", "output": f"{self.output}/{ADAPTIVE}"}
        return [self.model_copy(update={"mode": "static"}), self.model_copy(update=adaptive)]

    def all_judges(self) -> dict[str, EndpointConfig]:
        """The main judge, then the further ones."""
        return {MAIN_JUDGE: self.judge, **self.judges}

    def max_pixels_of(self, model: str) -> int:
        """The largest area of a picture shown to a model, in px."""
        return self.models[model].max_pixels or self.max_pixels

    def sampling_of(self, model: str) -> SamplingConfig:
        """How a model answers; what its endpoint sets itself comes first."""
        entry, own = self.models[model], dict[str, Any]()
        if entry.endpoint:
            sent = entry.endpoint.model_dump(exclude={"extra_body"}, exclude_none=True) | entry.endpoint.extra_body
            own = {name: sent[name] for name in SAMPLED if name in sent}
        return SamplingConfig.model_validate(self.sampling.model_dump() | entry.sampling | own)

    def format_of(self, model: str) -> AnswerFormat:
        """The answer format of a model.

        Raises:
            UserError: the config names another one than its checkpoint was trained with.
        """
        own, checkpoint = self.models[model].answer_format, self.models[model].checkpoint
        if own and checkpoint and (problem := own.problem(checkpoint)):
            raise UserError(f"models.{model}.{problem}; leave it out")
        return own or (checkpoint and AnswerFormat.of_checkpoint(checkpoint)) or self.answer_format

    def title(self, model: str) -> str:
        """A model's name in tables."""
        return self.models[model].title or model


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


def role_of(kind: str, name: str) -> str:
    """The client's role, from which names of environment variables come: EVALUATED_<NAME>_API_KEY and the like."""
    return f"{kind}_{re.sub('[^A-Za-z0-9]', '_', name)}"


def judge_role(judge: str) -> str:
    """The role of one judge's client: JUDGE_MODEL and the like are of the main one, JUDGE_<NAME>_MODEL of another."""
    return MAIN_JUDGE if judge == MAIN_JUDGE else role_of(MAIN_JUDGE, judge)
