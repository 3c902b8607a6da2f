"""The miniature's world: cells and seeds -> a list of `Step`s in the order in which they are best started.

Shared steps are there once.

All seeds start from one Base, as all of the paper's runs start from the published Qwen2.5-VL: a seed has its own
pictures, questions, dialogues, SFT and GRPO. So intervals over seeds are about the method, not about the Base.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from reproduce.cells import CELLS, Cell
from reproduce.settings import Extras, Settings
from reproduce.step import Step

CONFIGS = Path("configs")


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


def checkpoint(cell: Cell, root: Path) -> Path:
    """The model that is evaluated; `root` is the seed's folder."""
    return root / cell.folder / "checkpoint" if cell.folder else base_folder(root.parent)


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
        f"models.model.checkpoint={checkpoint(cell, run.folder)}",
        f"output={output}",
        *(item.replace("{root}", str(run.folder)) for item in cell.evaluation),
    ]
    needs = ("data", "single_turn", *([cell.trained_as or name] if cell.folder else []))
    step = run.step(f"evaluate_{name}", "evaluation", output, needs, extra)
    files = (output / "summary.json", output / "model" / "dialogues.jsonl")
    return replace(step, records=(output / "model" / "judge.json",), files=files)
