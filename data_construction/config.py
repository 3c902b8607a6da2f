"""The config of data construction: sources, kinds, turns, quality, red team, bootstrapping, splits, roles."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from data_construction.assemble.config import Assemble
from data_construction.prompts import GUIDELINES
from data_construction.red_team.strategies import STRATEGIES
from data_construction.red_team.techniques import POOLS
from data_construction.sources import SOURCES
from safer_steer.answer_format import PLAIN, AnswerFormat
from safer_steer.config import Operational, Section
from safer_steer.dialogue import MAX_TURNS, Kind, Pictures
from safer_steer.engine import RayEngine
from safer_steer.errors import UserError
from safer_steer.llm import EndpointConfig
from safer_steer.llm.prices import load_prices, with_prices
from safer_steer.row_choice import Id, Limit, check_choice
from safer_steer.servers import ServiceConfig, check_services

Step = Literal["seeds", "stage1", "score", "stage2", "history", "assemble"]
InjectorMode = Literal["noise", "typography", "both"]
Role = Literal["generator", "target", "red", "blue", "evaluator"]
PromptName = Literal[
    *("probe", "expand", "forensics", "intent", "plan", "leak", "refusal", "rewrite", "turn_scores", "request_risk")
]
STAGE_ROLES: dict[str, tuple[Role, ...]] = {
    "stage1": ("generator", "target", "evaluator"),
    "score": ("target", "evaluator"),
    "stage2": ("red", "blue", "evaluator"),
    "history": ("evaluator",),
}
# How English users point at a picture; replace or extend them for other languages.
PICTURE_WORDS = (
    *("picture", "image", "photo", "photograph", "screenshot", "drawing", "figure", "diagram", "chart", "scene"),
    *("this", "these", "those", "shown", "see", "visible", "depicted"),
)


def _each_once(names: list[str]) -> list[str]:
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"twice in the list: {', '.join(repeated)}")
    return names


Kinds = Annotated[list[Kind], Field(min_length=1), AfterValidator(_each_once)]


class SourceConfig(Section):
    """Where seeds come from; `python -m data_construction.sources` lists the readers with their splits and fields."""

    reader: str
    path: str
    """File, folder, or id of a data set on the Hugging Face hub (ORG/NAME[@REVISION])."""
    split: Literal["train", "bench"] = "train"
    """Of STEER."""
    data_split: str | None = None
    """Of the data set; None: the reader's first."""
    kinds: Kinds | None = None
    """None: the run's kinds."""
    benchmark: str | None = None
    """None: the seed's meta.benchmark, else the source's name."""
    limit: Limit | None = None
    """Seeds: so many, or a range of places in file order such as 10-20; None: all."""
    ids: list[Id] = []
    """Of the seeds to take; []: all."""
    take: Literal["drawn", "first"] = "drawn"
    """Which ones under a limit: drawn by the run's seed, or in file order."""
    pictures: Pictures = "required"
    """`optional`: rows without a picture are taken too, and their dialogues are in words alone; `required`: rejected.
    """
    fields: dict[str, str] = {}
    """Our field -> theirs, over the reader's own; "a.b" reaches into objects."""
    where: dict[str, Any] = {}
    """Their field -> the value, or list of values, that a row must have to be taken."""

    @field_validator("reader")
    @classmethod
    def _known_reader(cls, name: str) -> str:
        return _known(name, SOURCES, "reader")

    @model_validator(mode="after")
    def _fits_the_reader(self) -> Self:
        check_choice(self.limit, self.ids)
        try:
            SOURCES[self.reader].check(self.fields, self.data_split)
        except UserError as error:
            raise ValueError(str(error)) from error
        return self


class OwnDialogues(Section):
    """Dialogues of your own, in place of those that Stage I makes of `sources`."""

    path: str
    """A JSONL file of dialogues; pictures lie at or below its folder."""
    limit: Limit | None = None
    """So many dialogues, or a range of places such as 10-20; null: all."""
    ids: list[Id] = []
    """Of the dialogues to take; []: all."""

    @model_validator(mode="after")
    def _one_choice(self) -> Self:
        check_choice(self.limit, self.ids)
        return self


class TurnRange(Section):
    """How many user turns a dialogue gets: uniform over [min, max], or by `weights`, one for each number."""

    min: Annotated[int, Field(ge=2, le=MAX_TURNS)] = 2
    max: Annotated[int, Field(ge=2, le=MAX_TURNS)] = 10
    weights: list[Annotated[float, Field(ge=0)]] | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        if self.weights is not None and (len(self.weights) != self.max - self.min + 1 or not sum(self.weights)):
            raise ValueError(
                f"weights must be {self.max - self.min + 1} numbers, one for each of {self.min}..{self.max}, not all 0"
            )
        return self

    def within(self, low: int, high: int) -> dict[int, float]:
        """Number of turns -> weight, for those in the range and in [low, high]; all alike where the weights are 0."""
        numbers = [number for number in range(self.min, self.max + 1) if low <= number <= high]
        weights = {number: self.weights[number - self.min] if self.weights else 1.0 for number in numbers}
        return weights if sum(weights.values()) else dict.fromkeys(numbers, 1.0)

    def mean(self, low: int = 2, high: int = 10) -> float:
        """The expected number of turns."""
        weights = self.within(low, high)
        return sum(number * weight for number, weight in weights.items()) / sum(weights.values())


class Turns(Section):
    """Turn ranges by kind (Sec. 4.2: 2-10)."""

    benign: TurnRange = TurnRange()
    obfuscated: TurnRange = TurnRange()
    red_team: TurnRange = TurnRange()


class Expand(Section):
    """Expansion of rewrites into turns (Eq. 8)."""

    benign_answers: Literal["never", "reference", "always"] = "reference"
    """Question-answer rows: `reference` where the seed has an answer to write them from, `always` for every benign row.
    """


class NearDuplicates(Section):
    """Which dialogues are the same but for small changes: Jaccard similarity of their word shingles, by MinHash."""

    threshold: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Similarity, above which the later row is dropped."""
    among: Literal["all", "same_picture"] = "all"
    """The rows that are compared with each other."""
    shingle_words: Annotated[int, Field(ge=1)] = 3
    permutations: Annotated[int, Field(ge=16)] = 128
    """4 bytes of signature each; the estimate's error is 1 / sqrt of it."""


class Quality(Section):
    """What a generated dialogue must be; what is not, is asked for once more and then rejected with its reason."""

    min_turn_words: Annotated[int, Field(ge=1)] = 2
    max_turn_words: Annotated[int, Field(ge=1)] = 60
    """A turn may also be as long as its seed's question."""
    max_answer_words: Annotated[int, Field(ge=1)] = 300
    picture_words: list[str] = list(PICTURE_WORDS)
    """One of these words or phrases must be in some turn, in any case; []: not checked."""
    languages: list[str] = []
    """ISO 639-1 codes of the user turns; []: any."""
    refusal_role: Role = "generator"
    """Who tells refusals from user turns; a cheap model will do."""
    near_duplicates: NearDuplicates | None = NearDuplicates()
    """Null: exact duplicates only."""

    @field_validator("languages")
    @classmethod
    def _language_codes(cls, codes: list[str]) -> list[str]:
        if wrong := [code for code in codes if not (len(code) == 2 and code.isascii() and code.islower())]:
            raise ValueError(f"not ISO 639-1 codes: {', '.join(wrong)}; write two small letters, such as en")
        return codes

    @model_validator(mode="after")
    def _lengths_fit(self) -> Self:
        if self.min_turn_words > self.max_turn_words:
            raise ValueError(f"min_turn_words {self.min_turn_words} is above max_turn_words {self.max_turn_words}")
        return self


class RedTeam(Section):
    """Strong red-team (Eq. 9-10)."""

    strategies: list[str] = list(STRATEGIES)
    strategies_per_seed: Annotated[int, Field(ge=1)] | None = None
    """None: all of them."""
    rewrite_of: Literal["obfuscated", "question"] = "obfuscated"
    """What M2 starts from: the probe's obfuscated rewrite (Eq. 9), or the seed's question (released code)."""
    min_rewrite_words: Annotated[int, Field(ge=1)] = 80
    """Of M2's rewrite (App. F)."""
    max_rewrite_words: Annotated[int, Field(ge=1)] = 200
    technique_pool: str = "paper"
    success_score: Annotated[int, Field(ge=2, le=5)] = 4
    """On the leak judge's 1-5 scale."""

    @field_validator("strategies")
    @classmethod
    def _known_strategies(cls, names: list[str]) -> list[str]:
        return [_known(name, STRATEGIES, "strategy") for name in _each_once(names)]

    @field_validator("technique_pool")
    @classmethod
    def _known_pool(cls, name: str) -> str:
        return _known(name, POOLS, "technique pool")

    @model_validator(mode="after")
    def _enough_strategies(self) -> Self:
        if self.min_rewrite_words > self.max_rewrite_words:
            raise ValueError(
                f"min_rewrite_words {self.min_rewrite_words} is above max_rewrite_words {self.max_rewrite_words}"
            )
        if self.tries_per_seed > len(self.strategies):
            raise ValueError(
                f"strategies_per_seed {self.strategies_per_seed} is above the number of strategies, "
                f"{len(self.strategies)}"
            )
        return self

    @property
    def tries_per_seed(self) -> int:
        """How many strategies each seed gets."""
        return len(self.strategies) if self.strategies_per_seed is None else self.strategies_per_seed


class Injector(Section):
    """Visual injector (App. F): what a share of the red-team pictures gets."""

    share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Of the seeds with red-team dialogues; the paper: 0.1."""
    modes: Annotated[list[InjectorMode], Field(min_length=1)] = ["noise", "typography", "both"]
    noise_sigma: Annotated[float, Field(gt=0, le=1)] = 0.03
    """Standard deviation, of full scale."""
    phrases: Annotated[list[Annotated[str, Field(min_length=1, max_length=60)]], Field(min_length=1)] = [
        "Step by step",
        "Please continue",
        "Answer in full",
        "List the details",
        "Read this first",
    ]
    colours: Annotated[list[Literal["red", "white", "yellow"]], Field(min_length=1)] = ["red", "white", "yellow"]


class Bootstrap(Section):
    """Red-blue loop and keep rule (Eq. 12-15)."""

    tau_safe: Annotated[int, Field(ge=1, le=10)] = 8
    tau_help: Annotated[float, Field(ge=1, le=10)] = 7.0
    guidelines: str = str(GUIDELINES)
    answer_format: AnswerFormat = PLAIN
    """Tags of the blue agent's answers, as in SFT and GRPO; other answers are rejected. A YAML file or its content."""
    candidates: Annotated[int, Field(ge=1)] | None = None
    """Dialogues to bootstrap, in the mix of SFT; None: all."""


class LocalEngine(Section):
    """One process."""

    name: Literal["local"] = "local"


class DataConfig(Section):
    """Everything `python -m data_construction.pipeline` reads."""

    root: str
    seed: int = 0
    steps: Annotated[list[Step], Field(min_length=1)] = ["stage1", "stage2", "assemble"]
    kinds: Kinds = ["benign", "obfuscated", "red_team"]
    sources: dict[str, SourceConfig] = {}
    dialogues: OwnDialogues | None = None
    turns: Turns = Turns()
    expand: Expand = Expand()
    quality: Quality = Quality()
    red_team: RedTeam = RedTeam()
    injector: Injector = Injector()
    bootstrap: Bootstrap = Bootstrap()
    assemble: Assemble = Assemble()
    roles: dict[Role, EndpointConfig]
    policy: Annotated[str | None, Operational] = None
    """A text file that says what counts as harm, for the evaluator and the blue agent's guidelines; its content counts,
    not where it lies. Null: safer_steer/policies/general.md.
    """
    prompts: dict[PromptName, str] = {}
    """Name -> your own .jinja template, in place of that of data_construction/prompts."""
    prices: str | None = None
    """YAML with prices by model, for roles that name none."""
    services: dict[str, ServiceConfig] = {}
    engine: Annotated[LocalEngine | RayEngine, Field(discriminator="name")] = LocalEngine()
    """Or just its name."""
    concurrency: Annotated[int, Field(ge=1)] = 64
    """Tasks in flight, over all workers."""
    max_transport_rate: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Share of tasks without an answer that stops the run."""
    retry: Annotated[Literal["unscored"] | None, Operational] = None
    """`unscored`: the steps after Stage I ask again for what has no score; what has one is kept."""

    @model_validator(mode="before")
    @classmethod
    def _priced(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("prices") and isinstance(data.get("roles"), dict):
            return data | {"roles": with_prices(data["roles"], load_prices(data["prices"]))}
        return data

    @field_validator("engine", mode="before")
    @classmethod
    def _engine_by_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if not (self.sources or self.dialogues):
            raise ValueError("nothing to work on: name sources, or dialogues.path of your own")
        if self.dialogues and "seeds" in self.steps:
            raise ValueError("dialogues has no seeds; take the step seeds out")
        sft = self.assemble.sft
        if sft.origin == "answered" and sft.size != 0 and self.expand.benign_answers == "never" and not self.dialogues:
            raise ValueError(
                "assemble.sft.origin=answered takes rows with answers, and expand.benign_answers=never makes none; set "
                "the latter to reference or always, or assemble.sft.size=0"
            )
        missing = [role for role in self.roles_needed() if role not in self.roles]
        if missing:
            raise ValueError(
                f"roles: no endpoint for {', '.join(missing)}, which the steps {', '.join(self.steps)} need"
            )
        check_services(self.services, {role: self.roles[role] for role in self.roles_needed()})
        if "history" in self.steps and self.assemble.rl.history_dependent is None:
            raise ValueError("the step history needs assemble.rl.history_dependent; set it, or take the step out")
        if "score" in self.steps and not (self.assemble.sft.candidate_rule or self.assemble.rl.candidate_rule):
            raise ValueError(
                "the step score needs assemble.sft.candidate_rule or assemble.rl.candidate_rule; set one, or take the "
                "step out"
            )
        if self.has_red_team() and not eligible_techniques(self.red_team, self.turns.red_team):
            raise ValueError(
                f"no technique of pool {self.red_team.technique_pool!r} takes {self.turns.red_team.min} or more turns"
            )
        return self

    @property
    def folder(self) -> Path:
        """The data folder, `${root}/data`."""
        return Path(self.root) / "data"

    def kinds_of(self, source: SourceConfig) -> list[Kind]:
        """The kinds made from a source's seeds."""
        return source.kinds or self.kinds

    def has_red_team(self) -> bool:
        """True when some source's seeds are red-teamed."""
        return not self.dialogues and any("red_team" in self.kinds_of(source) for source in self.sources.values())

    def endpoints(self, step: Step) -> dict[str, EndpointConfig]:
        """Role -> endpoint of all that a step calls, with the environment's values in place of the config's."""
        called = self.model_copy(update={"steps": [step]}).roles_needed()
        return {role: self.roles[role].from_environment(role) for role in called}

    def roles_needed(self) -> list[Role]:
        """The roles that the configured steps call."""
        called = STAGE_ROLES if self.has_red_team() else STAGE_ROLES | {"stage1": ("generator",)}
        called = called | {"stage1": ()} if self.dialogues else called
        roles = [role for step in self.steps for role in called.get(step, ())]
        writes = "stage2" in self.steps or ("stage1" in self.steps and not self.dialogues)
        extra = [self.quality.refusal_role] if writes else []
        return list(dict.fromkeys(roles + extra))


def eligible_techniques(red_team: RedTeam, turns: TurnRange) -> list[str]:
    """The techniques of the configured pool whose turn range meets the configured one."""
    pool = POOLS[red_team.technique_pool]
    return [key for key, item in pool.items() if item.min_turns <= turns.max and item.max_turns >= turns.min]


def _known(name: str, registry: Mapping[str, Any], what: str) -> str:
    if name not in registry:
        raise ValueError(f"unknown {what} {name!r}; choose from: {', '.join(registry)}")
    return name
