"""The cells of the paper's tables and the graph of steps that makes them, as data.

A cell is one trained model: `CELLS` says how it is trained, `steps` turns cells and seeds into a list of `Step`s in the
order in which they are best started. Shared steps are there once.
"""

from dataclasses import dataclass
from pathlib import Path

from miniature.reproduce.settings import Settings
from miniature.reproduce.steps import Step
from safer_steer.errors import UserError

CONFIGS = Path("configs")


@dataclass(frozen=True)
class Cell:
    """One model.

    Attributes:
        title: its name in tables.
        stage: what trains it last: `warm_up`, `sft` or `grpo`.
        folder: of its run, below the seed's folder; holds `checkpoint/`, or is the checkpoint (the Base).
        arguments: beside the config and the seed's folder and number; `{root}` is the seed's folder.
        needs: steps before the training.
    """

    title: str
    stage: str
    folder: str
    arguments: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()

    def checkpoint(self, root: Path) -> Path:
        """The model that is evaluated."""
        return root / self.folder if self.stage == "warm_up" else root / self.folder / "checkpoint"


STATIC = "actor_rollout_ref.model.path={root}/sft_single_turn/checkpoint"
CELLS: dict[str, Cell] = {
    "base": Cell("Base", "warm_up", "base"),
    "sft_single_turn": Cell(
        "Single-turn SFT",
        "sft",
        "sft_single_turn",
        ("turns=last", "output={root}/sft_single_turn"),
        ("data", "warm_up"),
    ),
    "sft": Cell("Multi-turn SFT", "sft", "sft", (), ("data", "warm_up")),
    "grpo": Cell("SFT+GRPO (full)", "grpo", "grpo", (), ("sft",)),
    "grpo_no_tcsr": Cell("− TCSR", "grpo", "grpo_no_tcsr", ("ablation=no_tcsr",), ("sft",)),
    "grpo_no_feedback_dynamics": Cell(
        "− feedback dynamics", "grpo", "grpo_no_feedback_dynamics", ("ablation=no_feedback_dynamics",), ("sft",)
    ),
    "grpo_no_bootstrapping": Cell(
        "− bootstrapping", "grpo", "grpo_no_bootstrapping", ("ablation=no_bootstrapping",), ("data", "warm_up")
    ),
    "grpo_single_turn": Cell(
        "Single-turn SFT+GRPO", "grpo", "grpo_single_turn", ("ablation=single_turn", STATIC), ("sft_single_turn",)
    ),
}
# Stage -> how it is started, its config, and the name of its seed.
COMMANDS: dict[str, tuple[tuple[str, ...], str, str]] = {
    "seeds": (("python", "-m", "miniature.seeds"), "miniature/seeds.yaml", "seed"),
    "warm_up": (("python", "-m", "miniature.warm_up"), "miniature/base.yaml", "seed"),
    "single_turn": (("python", "-m", "miniature.single_turn"), "miniature/single_turn.yaml", "seed"),
    "data": (("bash", "scripts/run_data_construction.sh"), "data_construction/miniature.yaml", "seed"),
    "sft": (("bash", "scripts/run_sft.sh"), "sft/miniature.yaml", "seed"),
    "grpo": (("bash", "scripts/run_grpo.sh"), "grpo/miniature.yaml", "data.seed"),
    "evaluation": (("bash", "scripts/run_evaluation.sh"), "evaluation/reproduce.yaml", "sampling.seed"),
}
# Steps that make no cell: folder of their run, and what they need.
SHARED: dict[str, tuple[str, tuple[str, ...]]] = {
    "seeds": ("world", ()),
    "single_turn": ("single_turn", ()),
    "data": ("data", ("seeds", "warm_up")),
}


def variant_cells(settings: Settings) -> dict[str, Cell]:
    """The sweep's cells: the full GRPO cell, each with its own overrides and folder."""
    return {
        f"sweep_{name}": Cell(name, "grpo", f"sweep/{name}", ("output={root}/sweep/" + name, *extra), ("sft",))
        for name, extra in settings.variants.items()
    }


def choose(known: dict[str, Cell], only: str | None, prefix: str = "") -> dict[str, Cell]:
    """The cells that `--only NAME[,NAME...]` names, in the order of the tables; all without it.

    Raises:
        UserError: a name is unknown; the message lists the choices.
    """
    if only is None:
        return known
    asked = [prefix + name.strip() for name in only.split(",")]
    unknown = [name.removeprefix(prefix) for name in asked if name not in known]
    if unknown:
        choices = ", ".join(name.removeprefix(prefix) for name in known)
        raise UserError(f"--only: unknown name(s) {', '.join(map(repr, unknown))}; choose from {choices}")
    return {name: cell for name, cell in known.items() if name in asked}


def steps(settings: Settings, root: Path, seeds: range, cells: dict[str, Cell]) -> list[Step]:
    """All steps that the cells need, over all seeds: those of a seed together, each after what it needs."""
    return [step for seed in seeds for step in _of_seed(settings, root / f"seed_{seed}", seed, cells)]


def _of_seed(settings: Settings, folder: Path, seed: int, cells: dict[str, Cell]) -> list[Step]:
    wanted: set[str] = {"single_turn"}

    def want(name: str) -> None:
        needs = SHARED[name][1] if name in SHARED else (CELLS | cells)[_cell_of(name)].needs
        if name not in wanted:
            wanted.add(name)
            for need in needs:
                want(need)

    for name in cells:
        want(_training(name))
    want("data")  # the benchmarks
    order = ["seeds", "warm_up", "data", "single_turn", *(_training(name) for name in (CELLS | cells))]
    training = [_step(settings, folder, seed, name, cells) for name in dict.fromkeys(order) if name in wanted]
    return training + [_evaluation(settings, folder, seed, name, cell) for name, cell in cells.items()]


def _training(cell: str) -> str:
    """The step that trains a cell; the Base is trained by the warm-up."""
    return "warm_up" if cell == "base" else cell


def _cell_of(step: str) -> str:
    return "base" if step == "warm_up" else step


def _step(settings: Settings, folder: Path, seed: int, name: str, cells: dict[str, Cell]) -> Step:
    if name in SHARED:
        stage, (where, needs), arguments = name, SHARED[name], ()
    else:
        cell = (CELLS | cells)[_cell_of(name)]
        stage, where, needs, arguments = cell.stage, cell.folder, cell.needs, cell.arguments
    extra = [item.format(root=folder) for item in arguments]
    return _make(settings, folder, seed, name, stage, extra, folder / where, needs, [folder / where / "run.json"])


def _evaluation(settings: Settings, folder: Path, seed: int, name: str, cell: Cell) -> Step:
    output = folder / "evaluation" / name
    extra = [
        f"models.model.title={cell.title}",
        f"models.model.checkpoint={cell.checkpoint(folder)}",
        f"output={output}",
    ]
    needs = ("data", "single_turn", _training(name))
    records = [output / "model" / "judge.json"]
    files = (output / "summary.json", output / "model" / "dialogues.jsonl")
    return _make(settings, folder, seed, f"evaluate_{name}", "evaluation", extra, output, needs, records, files)


def _make(settings, folder, seed, name, stage, extra, output, needs, records, files=()) -> Step:
    start, config, seed_key = COMMANDS[stage]
    path = CONFIGS / config
    # Ours after the settings': what tells the cells apart is not up to them.
    command = (*start, str(path), f"root={folder}", f"{seed_key}={seed}", *getattr(settings, stage), *extra)
    label = folder.name
    return Step(
        name=f"{label}/{name}",
        command=command,
        config=path,
        folder=folder,
        output=output,
        needs=tuple(f"{label}/{need}" for need in needs),
        records=tuple(records),
        files=tuple(files),
    )
