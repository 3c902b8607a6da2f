"""What the steps of data construction that call models have in common, as the frame of each step's `Stage`."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from data_construction.calls import Caller
from data_construction.config import DataConfig, Step
from data_construction.prompts import load_prompts
from safer_steer.dialogue import Dialogue
from safer_steer.engine import Clients, RayEngine, Work
from safer_steer.errors import UserError
from safer_steer.machine import Needs
from safer_steer.rows import Counts, Task
from safer_steer.runs import is_finished
from safer_steer.stage import Stage

RECORDS: dict[Step, str] = {
    "seeds": "run.seeds.json",
    "stage1": "run.stage1.json",
    "score": "run.score.json",
    "stage2": "run.stage2.json",
    "history": "run.history.json",
    "assemble": "run.json",
}
RETRIED: tuple[Step, ...] = ("score", "stage2", "history")
MakeWork = Callable[[DataConfig, Caller], Work]


@dataclass(frozen=True)
class RowTask:
    """One dialogue of Stage I for a step to work on; `load` reads it, so that waiting tasks hold no text."""

    step: Step
    row_id: str
    load: Callable[[], Dialogue]

    @property
    def task_id(self) -> str:
        """Stable over runs: the row's id is a hash of its content."""
        return f"{self.step}/{self.row_id}"


def step(
    config: DataConfig,
    name: Step,
    make_work: MakeWork,
    tasks: Callable[[], Iterable[Task]],
    *,
    facts: Mapping[str, Any],
    prompts: tuple[str, ...],
    more_prompts: Mapping[str, str] | None = None,
    **rest: Any,
) -> Stage:
    """A step's stage.

    Args:
        config: the run's config.
        name: which step.
        make_work: makes the function that does one task.
        tasks: begins the stream of tasks.
        facts: the part of the config that the results depend on, next to the seed.
        prompts: names of the prompts it uses.
        more_prompts: name -> hash of other wordings.
        rest: further fields of `Stage`.
    """
    wording = load_prompts(config.prompts, config.policy)
    return Stage(
        name={"stage1": "stage 1", "stage2": "stage 2"}.get(name, name),
        folder=config.folder,
        record=RECORDS[name],
        config={"seed": config.seed, **facts},
        roles=config.endpoints(name),
        services=config.services,
        prompts={key: wording[key].hash for key in prompts} | dict(more_prompts or {}),
        tasks=tasks,
        work=partial(_work, config, make_work),
        concurrency=config.concurrency,
        max_transport_rate=config.max_transport_rate,
        needs=Needs("cpu", config.folder),
        again=_without_scores if config.retry and name in RETRIED else None,
        ray=config.engine if isinstance(config.engine, RayEngine) else None,
        **rest,
    )


def _without_scores(row: dict[str, Any]) -> bool:
    """Whether a stored row is a reject: kept rows of these steps have their scores."""
    return "reason" in row


def _work(config: DataConfig, make_work: MakeWork, clients: Clients) -> Work:
    return make_work(config, Caller(clients, load_prompts(config.prompts, config.policy), config.folder, config.seed))


def require_finished(folder: Path, name: Step) -> None:
    """Checks that an earlier step went to its end.

    Raises:
        UserError: it did not.
    """
    if not is_finished(folder / RECORDS[name]):
        raise UserError(f"{folder}: step {name} is not finished; put it into steps and run the same command again")


def require_some(what: str, counts: Counts, rejects: str, advice: str) -> None:
    """Checks that a step has a result.

    Raises:
        UserError: not one of its tasks gave a row.
    """
    if counts.kept == 0:
        reasons = ", ".join(f"{number} {reason}" for reason, number in counts.reasons.items()) or "there were none"
        raise UserError(f"{what}: none of {counts.tasks} rows could be used ({reasons}); see {rejects}, then {advice}")
