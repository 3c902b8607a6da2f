"""The miniature's world: cells and seeds -> a list of `Step`s in the order in which they are best started.

Shared steps are there once. `phase_steps` has those of the phase diagram.

All seeds start from one Base, as all of the paper's runs start from the published Qwen2.5-VL: a seed has its own
pictures, questions, dialogues, SFT and GRPO. So intervals over seeds are about the method, not about the Base.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from reproduce.cells import CELLS, PHASE, Cell
from reproduce.settings import Settings
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
    "adaptive": (("bash", "scripts/run_evaluation.sh"), "evaluation/reproduce_adaptive.yaml", "sampling.seed"),
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
KINDS = ("benign", "obfuscated", "red_team")  # of dialogues, each with its number of turns
SHORTEST = 2  # turns of a dialogue
PROMPT_TOKENS = 64  # of the first question with its picture: data.max_prompt_length of configs/grpo/miniature.yaml
TURN_TOKENS = 64  # of an answer and the question after it, 32 each at most


def base_folder(root: Path) -> Path:
    """Where the Base of all seeds is."""
    return root / "shared" / "base"


@dataclass(frozen=True)
class _Run:
    """A run folder: what all steps of a seed (or of the Base, or of a point) have in common; `root` holds them all."""

    settings: Settings
    root: Path
    folder: Path
    seed: int

    def step(self, name: str, stage: str, output: Path, needs: Sequence[str] = (), extra: Sequence[str] = ()) -> Step:
        """One command of `stage`; `needs` are names of this run's steps, `extra` is what tells it from its likes."""
        start, config, seed_key = COMMANDS[stage]
        base = [f"{BASE_KEYS[stage]}={base_folder(self.root)}"] if stage in BASE_KEYS else []
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
            needs=(*before, WARM_UP) if base or "evaluation" in config else before,
            records=(output / "run.json",),
        )


def steps(settings: Settings, root: Path, seeds: int, cells: dict[str, Cell]) -> list[Step]:
    """All steps that the cells need: the Base, then each step for all seeds before the next one, each after its needs.

    So what is there after an interrupt says something about every seed.
    """
    by_seed = []
    for seed in range(seeds):
        mine = {name: cell for name, cell in cells.items() if seed < settings.at_most.get(name, seeds)}
        by_seed.append(_of_run(_Run(settings, root, root / f"seed_{seed}", seed), mine, SHARED))
    order = [step.short for step in by_seed[0]]  # seed 0 has all cells
    found = [step for one in by_seed for step in one]
    return [_base(settings, root), *sorted(found, key=lambda step: order.index(step.short))]


def phase_folder(root: Path, risk: float, turns: int, seed: int) -> Path:
    """Where a point of the phase diagram is made with a seed."""
    return root / "phase" / f"risk_{risk:g}_turns_{turns}_seed_{seed}"


def phase_points(root: Path) -> dict[tuple[float, int], list[Path]]:
    """The points of the phase diagram that have been begun: risk and most turns -> a folder for each seed, in order."""
    names = [(re.fullmatch(r"risk_(.+)_turns_(\d+)_seed_(\d+)", path.name), path) for path in root.glob("phase/*")]
    points: dict[tuple[float, int], list[Path]] = defaultdict(list)
    begun = sorted((float(name[1]), int(name[2]), int(name[3]), path) for name, path in names if name)
    for risk, turns, _, path in begun:
        points[risk, turns].append(path)
    return points


def phase_steps(settings: Settings, root: Path) -> list[Step]:
    """The Base, and of each point of the phase diagram its own pictures, dialogues, SFT and GRPO with every rule; all
    points with one seed before the next one.
    """
    found = [_base(settings, root)]
    shared = {name: SHARED[name] for name in ("seeds", "data")}
    points = settings.phase
    for seed, turns, risk in product(range(points.number_of_seeds), points.turns, points.risks):
        said = TURN_TOKENS * turns
        whole = PROMPT_TOKENS + said
        ours = {
            "seeds": [*settings.seeds, *points.seeds, f"marked_share={risk}"],
            "data": [
                *settings.data,
                *(f"turns.{kind}.max={turns}" for kind in KINDS),
                f"services.target.vllm.max_model_len={whole}",
            ],
            "grpo": [
                *settings.grpo,
                f"data.max_response_length={said}",
                f"actor_rollout_ref.rollout.max_model_len={whole}",
            ],
            "evaluation": [
                *settings.evaluation,
                "benchmarks=['${root}/data/steer_bench/*.jsonl']",
                f"serving.max_model_len={whole}",
            ],
        }
        run = _Run(settings.model_copy(update=ours), root, phase_folder(root, risk, turns, seed), seed)
        found += _of_run(run, PHASE, shared)
    return found


def _base(settings: Settings, root: Path) -> Step:
    return _Run(settings, root, root / "shared", 0).step("warm_up", "warm_up", base_folder(root))


def _of_run(run: _Run, cells: dict[str, Cell], shared: dict[str, tuple[str, tuple[str, ...]]]) -> list[Step]:
    trained: set[str] = set()
    known = CELLS | PHASE

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
    found = [run.step(name, name, run.folder / where, needs) for name, (where, needs) in shared.items()]
    for name, cell in known.items():
        if name in trained and cell.folder:
            extra = [item.replace("{root}", str(run.folder)) for item in cell.arguments]
            found.append(run.step(name, cell.stage, run.folder / cell.folder, cell.needs, extra))
        if name in cells:
            found.append(_evaluation(run, name, cell, [need for need in ("data", "single_turn") if need in shared]))
    return found


def _evaluation(run: _Run, name: str, cell: Cell, needs: list[str]) -> Step:
    output = run.folder / "evaluation" / name
    checkpoint = run.folder / cell.folder / "checkpoint" if cell.folder else base_folder(run.root)
    extra = [f"models.model.title={cell.title}", f"models.model.checkpoint={checkpoint}", f"output={output}"]
    if cell.tutor:
        extra.append(f"tutor.model={cell.tutor}")
    needs = [*needs, *([cell.trained_as or name] if cell.folder else [])]
    step = run.step(f"evaluate_{name}", "adaptive" if cell.tutor else "evaluation", output, needs, extra)
    files = (output / "summary.json", output / "model" / "dialogues.jsonl")
    return replace(step, records=(output / "model" / "judge.json",), files=files)
