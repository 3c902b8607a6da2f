"""Stage I's units of work: one task for each (seed, kind, strategy), everything random drawn from its stable id."""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from data_construction.config import DataConfig, Quality, TurnRange, eligible_techniques
from data_construction.red_team.strategies import STRATEGIES, Strategy
from data_construction.red_team.techniques import POOLS, Technique
from data_construction.seeds import SeedRow
from safer_steer.dialogue import Dialogue, Kind, Turn, dialogue_id, stable_hash


@dataclass(frozen=True)
class StageOneTask:
    """One dialogue to make; `n_turns` counts user turns, strategy and technique are set for red_team only."""

    task_id: str
    row: SeedRow
    kind: Kind
    n_turns: int
    strategy_key: str | None = None
    technique_key: str | None = None
    technique: Technique | None = None

    @property
    def group(self) -> str:
        """Tasks of one group share calls: those of one seed."""
        return self.row.id

    def rules(self, rules: Quality) -> Quality:
        """What its turns must be: without a picture no turn has to refer to one."""
        return rules if self.row.seed.images else rules.model_copy(update={"picture_words": []})

    @property
    def strategy(self) -> Strategy:
        """The task's jailbreak strategy."""
        return STRATEGIES[self.strategy_key]


def stage_one_tasks(rows: Iterable[SeedRow], config: DataConfig) -> Iterator[StageOneTask]:
    """All tasks, in the order of the seeds, made as they are asked for."""
    return (task for row in rows for kind in row.kinds for task in _tasks_of(row, kind, config))


def _tasks_of(row: SeedRow, kind: Kind, config: DataConfig) -> list[StageOneTask]:
    if kind != "red_team":
        task_id = f"stage1/{row.id}/{kind}"
        return [StageOneTask(task_id, row, kind, draw_turns(getattr(config.turns, kind), task_id, config.seed))]
    row = row.with_injected()
    names = sorted(config.red_team.strategies, key=lambda name: stable_hash(config.seed, "strategy", row.id, name))
    tasks = []
    for strategy in names[: config.red_team.tries_per_seed]:
        task_id = f"stage1/{row.id}/{kind}/{strategy}"
        techniques = eligible_techniques(config.red_team, config.turns.red_team)
        key = random.Random(stable_hash(config.seed, "technique", task_id)).choice(techniques)
        technique = POOLS[config.red_team.technique_pool][key]
        n_turns = draw_turns(config.turns.red_team, task_id, config.seed, technique.min_turns, technique.max_turns)
        tasks.append(StageOneTask(task_id, row, kind, n_turns, strategy, key, technique))
    return tasks


def draw_turns(turns: TurnRange, task_id: str, seed: int, low: int = 2, high: int = 10) -> int:
    """The number of user turns of a task, within the configured range and [low, high]."""
    weights = turns.within(low, high)
    return random.Random(stable_hash(seed, "turns", task_id)).choices([*weights], [*weights.values()])[0]


def make_dialogue(task: StageOneTask, turns: list[Turn], meta: dict) -> Dialogue:
    """The task's kept row; its picture is shown at turn 1, and `meta.injector.original` is what it was made from.

    Where there is no picture, `meta.seed_question` stands for it in keeping the splits apart: see `Seed.content`.
    """
    row, seed = task.row, task.row.seed
    if isinstance(category := seed.meta.get("category"), str):
        meta = meta | {"category": category}
    if task.kind == "red_team" and row.injected:
        meta = meta | {"injector": row.injected.model_dump(mode="json")}
    if not seed.images:
        meta = meta | {"seed_question": seed.content}
    first = list(range(len(seed.images)))
    turns = [turn.model_copy(update={"images": [] if index else first}) for index, turn in enumerate(turns)]
    return Dialogue(
        id=dialogue_id(seed.source, row.id, task.kind, task.strategy_key, [turn.user for turn in turns]),
        source=seed.source,
        kind=task.kind,
        strategy=task.strategy_key,
        images=seed.images,
        turns=turns,
        meta={"task": task.task_id, "seed": row.id, "split": row.split, "benchmark": row.benchmark} | meta,
    )
