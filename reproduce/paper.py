"""The paper's world: all cells of its Tables 2 to 5, 8, 9 and Figure 4 -> a list of `Step`s; what is shared, once.

Names are SIZE/CELL, such as `3b/grpo_no_tcsr`; baselines are named after their row, such as `7b/tis`. A cell that the
paper prints is made unless `--only` names others.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.report.paper import paper_tables
from reproduce.cells import PAPER, Cell
from reproduce.forecast import Work
from reproduce.settings import PaperSettings, Size
from reproduce.step import Step

DATA = Path("configs/data_construction/default.yaml")
SINGLE_TURN = Path("configs/data_construction/single_turn.yaml")
EVALUATION = Path("configs/evaluation/cell.yaml")
SETS = ("beavertails_v", "mm_safetybench", "spa_vl", "vlguard", "vlsbench")  # Table 2's


@dataclass(frozen=True)
class PaperCell:
    """A cell at one size: one of `PAPER`, or a baseline with its model section. `row` is its row in the paper."""

    size: str
    name: str
    row: str
    cell: Cell | None = None
    model: dict[str, Any] | None = None

    @property
    def single_turn(self) -> bool:
        """Whether Table 2 has its row."""
        return self.row in paper_tables()["table2"].rows


def cells(settings: PaperSettings) -> dict[str, PaperCell]:
    """All cells of all sizes, and the baselines that have a model."""
    found: dict[str, PaperCell] = {}
    for size in settings.sizes:
        for name, cell in PAPER.items():
            found[f"{size}/{name}"] = PaperCell(size, name, f"{size.upper()} {cell.printed}", cell)
        for row, section in settings.baselines.items():
            prefix, _, name = row.partition(" ")
            if prefix.lower() == size and section:
                name = name.lower()
                found[f"{size}/{name}"] = PaperCell(size, name, row, model=section)
    return found


def printed(known: dict[str, PaperCell]) -> dict[str, PaperCell]:
    """The cells that the paper has numbers of."""
    rows = {row for name, table in paper_tables().items() if name != "table1" for row in table.rows}
    return {name: cell for name, cell in known.items() if cell.row in rows}


def steps(settings: PaperSettings, root: Path, wanted: dict[str, PaperCell]) -> list[Step]:
    """All steps that the cells need, each after its needs: data, then of each size training and evaluation."""
    found = _shared(settings, root, any(cell.single_turn for cell in wanted.values()))
    for size in dict.fromkeys(cell.size for cell in wanted.values()):
        mine = {cell.name: cell for cell in wanted.values() if cell.size == size}
        trained = set(mine)
        for name in [*mine]:
            trained |= set(PAPER[name].needs) & set(PAPER) if name in PAPER else set()
        for name in [*PAPER, *(name for name in mine if name not in PAPER)]:
            if name in PAPER and name in trained and PAPER[name].folder:
                found.append(_training(settings, root, size, name))
            if name in mine:
                found.append(evaluation(settings, root, mine[name]))
    return found


def bench(root: Path) -> Path:
    """Where STEER-Bench is."""
    return root / "steer" / "data" / "steer_bench"


def output(settings: PaperSettings, root: Path, cell: PaperCell) -> Path:
    """Where a cell's evaluation goes."""
    return root / settings.sizes[cell.size].folder / "evaluation" / cell.name


def _shared(settings: PaperSettings, root: Path, single_turn: bool) -> list[Step]:
    start = ("bash", "scripts/run_data_construction.sh")
    data, sets, folder = root / "steer" / "data", root / "single_turn" / "data", root / "shared"
    found = [
        Step(
            "shared/data",
            (*start, str(DATA), f"root={root}/steer", *settings.data),
            DATA,
            folder,
            data,
            records=(data / "run.json",),
            work=Work("data"),
        )
    ]
    if not single_turn:
        return found
    seeds, files = sets / "seeds.jsonl", tuple(sets / "single_turn" / f"{name}.jsonl" for name in SETS)
    prepare = ("python", "-m", "evaluation.single_turn.prepare", str(seeds), "--output", str(sets / "single_turn"))
    read = (*start, str(SINGLE_TURN), f"root={root}/single_turn", *settings.single_turn)
    return [
        *found,
        Step("shared/seeds", read, SINGLE_TURN, folder, sets, records=(sets / "run.seeds.json",)),
        Step("shared/single_turn", prepare, SINGLE_TURN, folder, files[0].parent, ("shared/seeds",), files=files),
    ]


def _training(settings: PaperSettings, root: Path, size: str, name: str) -> Step:
    cell, spec = PAPER[name], settings.sizes[size]
    folder, rows = root / spec.folder, root / "steer" / "data"
    if cell.stage == "sft":
        start, config, data = "run_sft.sh", spec.sft, [f"data={rows}/steer_sft.jsonl", *settings.sft]
    else:
        start, config, data = "run_grpo.sh", spec.grpo, [f"safer_steer.data.source={rows}/steer_rl.jsonl"]
        data += settings.grpo
    assert cell.folder
    made = folder / cell.folder
    return Step(
        f"{size}/{name}",
        ("bash", f"scripts/{start}", config, f"root={folder}", *data, *cell.arguments),
        Path(config),
        folder,
        made,
        tuple("shared/data" if need == "data" else f"{size}/{need}" for need in cell.needs),
        records=(made / "run.json",),
        work=Work("sft" if cell.stage == "sft" else "grpo", spec.parameters, last="single_turn" in name),
    )


def evaluation(settings: PaperSettings, root: Path, cell: PaperCell) -> Step:
    """The evaluation of one model on STEER-Bench, and on the single-turn sets where Table 2 has its row."""
    spec, place = settings.sizes[cell.size], output(settings, root, cell)
    patterns = [f"{bench(root)}/*.jsonl"]
    patterns += [f"{root}/single_turn/data/single_turn/*.jsonl"] if cell.single_turn else []
    model = {"title": cell.row, "checkpoint": None} | (cell.model or {"checkpoint": _checkpoint(spec, root, cell)})
    needs = ["shared/data", *(["shared/single_turn"] if cell.single_turn else [])]
    needs += [f"{cell.size}/{cell.name}"] if cell.cell and cell.cell.folder else []
    rows = {"model": cell.row}
    keys = [f"output={place}", f"benchmarks={json.dumps(patterns)}", f"models.model={json.dumps(model)}"]
    keys += [f"report.paper_rows={json.dumps(rows)}", *settings.evaluation]
    served = 0.0 if "endpoint" in model else spec.parameters
    return Step(
        f"{cell.size}/evaluate_{cell.name}",
        ("bash", "scripts/run_evaluation.sh", str(EVALUATION), *keys),
        EVALUATION,
        root / spec.folder,
        place,
        tuple(needs),
        records=(place / "model" / "judge.json",),
        files=(place / "summary.json",),
        work=Work("evaluation", served, single_turn=cell.single_turn),
    )


def _checkpoint(spec: Size, root: Path, cell: PaperCell) -> str:
    if cell.cell is None or cell.cell.folder is None:
        return spec.base_model
    return str(root / spec.folder / cell.cell.folder / "checkpoint")
