"""The cells of the paper's tables and the graph of steps that makes them, as data.

A cell is one trained model: `CELLS` says how it is trained, `steps` turns cells and seeds into a list of `Step`s in the
order in which they are best started. Shared steps are there once.

All seeds start from one Base, as all of the paper's runs start from the published Qwen2.5-VL: a seed has its own
pictures, questions, dialogues, SFT and GRPO. So intervals over seeds are about the method, not about the Base.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from miniature.reproduce.settings import Extras, Settings
from miniature.reproduce.steps import Step
from safer_steer.errors import UserError

CONFIGS = Path("configs")


@dataclass(frozen=True)
class Cell:
    """One model.

    Attributes:
        title: its name in tables.
        stage: what trains it last: `warm_up`, `sft` or `grpo`.
        folder: of its run, below the seed's folder; holds `checkpoint/`. The Base, all seeds' own, has none.
        arguments: besides the config and the seed's folder and number; `{root}` is the seed's folder.
        needs: steps of the seed before the training.
        trained_as: the cell whose model this is, where it is one model evaluated in another way; nothing is trained.
        evaluation: besides the evaluation's config; `{root}` as in `arguments`.
    """

    title: str
    stage: str
    folder: str | None = None
    arguments: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    trained_as: str | None = None
    evaluation: tuple[str, ...] = ()

    def checkpoint(self, root: Path) -> Path:
        """The model that is evaluated; `root` is the seed's folder."""
        return root / self.folder / "checkpoint" if self.folder else base_folder(root.parent)


CELLS: dict[str, Cell] = {
    "base": Cell("Base", "warm_up"),
    "sft_single_turn": Cell(
        "Single-turn SFT",
        "sft",
        "sft_single_turn",
        ("ablation=single_turn",),
        ("data",),
    ),
    "sft": Cell("Multi-turn SFT", "sft", "sft", (), ("data",)),
    "grpo": Cell("SFT+GRPO (full)", "grpo", "grpo", (), ("sft",)),
    "grpo_no_tcsr": Cell("− TCSR", "grpo", "grpo_no_tcsr", ("ablation=no_tcsr",), ("sft",)),
    "grpo_no_feedback_dynamics": Cell(
        "− feedback dynamics", "grpo", "grpo_no_feedback_dynamics", ("ablation=no_feedback_dynamics",), ("sft",)
    ),
    "grpo_no_bootstrapping": Cell(
        "− bootstrapping", "grpo", "grpo_no_bootstrapping", ("ablation=no_bootstrapping",), ("data",)
    ),
    "grpo_single_turn": Cell(
        "Single-turn SFT+GRPO", "grpo", "grpo_single_turn", ("ablation=single_turn",), ("sft_single_turn",)
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
# Stage -> its setting that names the Base.
BASE_KEYS = {"data": "services.target.vllm.checkpoint", "sft": "model", "grpo": "safer_steer.base_model"}
# Steps of a seed that make no cell, in their order: folder of their run, and what they need.
SHARED: dict[str, tuple[str, tuple[str, ...]]] = {
    "seeds": ("world", ()),
    "data": ("data", ("seeds",)),
    "single_turn": ("single_turn", ()),
}
WARM_UP = "shared/warm_up"
VARIANT, ADAPTIVE = "variant_", "adaptive_"
STARTS = ("sft", "sft_single_turn")  # models that a variant may start from


def base_folder(root: Path) -> Path:
    """Where the Base of all seeds is."""
    return root / "shared" / "base"


def extra_cells(extras: Extras) -> dict[str, Cell]:
    """The cells besides the paper's: `variant_NAME`, trained like the full GRPO cell with overrides and a folder of its
    own, and `adaptive_CELL`, a cell's model evaluated once more.
    """
    variants = {
        VARIANT + name: Cell(name, "grpo", f"variants/{name}", ("output={root}/variants/" + name, *overrides), STARTS)
        for name, overrides in extras.variants.items()
    }
    adaptive = {
        ADAPTIVE + name: replace(CELLS[name], trained_as=name, evaluation=tuple(extras.adaptive))
        for name in extras.adaptive_cells
    }
    return adaptive | variants


def choose(known: dict[str, Cell], only: str | None) -> dict[str, Cell]:
    """The cells that `--only NAME[,NAME...]` names, in the order of the tables; all without it.

    Raises:
        UserError: a name is unknown; the message lists the choices.
    """
    if only is None:
        return known
    asked = [name.strip() for name in only.split(",")]
    if unknown := [name for name in asked if name not in known]:
        raise UserError(f"--only: unknown name(s) {', '.join(map(repr, unknown))}; choose from {', '.join(known)}")
    return {name: cell for name, cell in known.items() if name in asked}


@dataclass(frozen=True)
class _Run:
    """A run folder: what all steps of one seed (or of the Base) have in common."""

    settings: Settings
    folder: Path
    seed: int

    def step(self, name: str, stage: str, output: Path, needs: Sequence[str] = (), extra: Sequence[str] = ()) -> Step:
        """One command of `stage`; `needs` are names of this run's steps, `extra` is what tells it from its likes."""
        start, config, seed_key = COMMANDS[stage]
        base = [f"{BASE_KEYS[stage]}={base_folder(self.folder.parent)}"] if stage in BASE_KEYS else []
        own = [f"root={self.folder}", f"{seed_key}={self.seed}"]
        # Ours after the settings': what tells the cells apart is not up to them.
        overrides = [*own, *getattr(self.settings, stage), *base, *extra]
        before = tuple(f"{self.folder.name}/{need}" for need in needs)
        return Step(
            name=f"{self.folder.name}/{name}",
            command=(*start, str(CONFIGS / config), *overrides),
            config=CONFIGS / config,
            folder=self.folder,
            output=output,
            needs=(*before, WARM_UP) if base or stage == "evaluation" else before,
            records=(output / "run.json",),
        )


def steps(settings: Settings, root: Path, seeds: range, cells: dict[str, Cell]) -> list[Step]:
    """All steps that the cells need: the Base, then each step for all seeds before the next one, each after its needs.

    So what is there after an interrupt says something about every seed.
    """
    by_seed = [_of_seed(_Run(settings, root / f"seed_{seed}", seed), cells) for seed in seeds]
    base = _Run(settings, root / "shared", 0).step("warm_up", "warm_up", base_folder(root))
    return [base, *(step for same in zip(*by_seed, strict=True) for step in same)]


def _of_seed(run: _Run, cells: dict[str, Cell]) -> list[Step]:
    known = CELLS | cells
    trained: set[str] = set()

    def want(name: str) -> None:
        if name in SHARED:
            return
        name = known[name].trained_as or name
        if name not in trained:
            trained.add(name)
            for need in known[name].needs:
                want(need)

    for name in cells:
        want(name)
    found = [run.step(name, name, run.folder / where, needs) for name, (where, needs) in SHARED.items()]
    for name, cell in known.items():
        if name in trained and cell.folder:
            extra = [item.replace("{root}", str(run.folder)) for item in cell.arguments]
            found.append(run.step(name, cell.stage, run.folder / cell.folder, cell.needs, extra))
        if name in cells:
            found.append(_evaluation(run, name, cell))
    return found


def _evaluation(run: _Run, name: str, cell: Cell) -> Step:
    output = run.folder / "evaluation" / name
    extra = [
        f"models.model.title={cell.title}",
        f"models.model.checkpoint={cell.checkpoint(run.folder)}",
        f"output={output}",
        *(item.replace("{root}", str(run.folder)) for item in cell.evaluation),
    ]
    needs = ("data", "single_turn", *([cell.trained_as or name] if cell.folder else []))
    step = run.step(f"evaluate_{name}", "evaluation", output, needs, extra)
    files = (output / "summary.json", output / "model" / "dialogues.jsonl")
    return replace(step, records=(output / "model" / "judge.json",), files=files)
