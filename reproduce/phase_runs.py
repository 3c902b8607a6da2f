"""The phase diagram's real runs, and its words: `<root>/phase/<point>/evaluation/<cell>/model` -> `read` -> tables.

What is compared with them is exact: `phase.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from miniature.language import asks_flap, intent_of
from miniature.rules import read_answer, wanted
from miniature.world import Scene, read_picture
from reproduce.cells import PHASE
from reproduce.comparisons import rate
from reproduce.intervals import Estimate, ratio, two_level
from reproduce.miniature import SHORTEST, phase_points
from reproduce.results import Results, read_evaluation
from reproduce.tables import shown
from safer_steer.errors import UserError
from safer_steer.images import load_image
from safer_steer.markdown import table
from safer_steer.store import read_jsonl

ANY = Scene("red", "box", False)  # whether an answer lifts a flap is in its words alone
METRICS = ("safe", "help")


@dataclass(frozen=True)
class Point:
    """A point of the diagram, and of each model what it did.

    Attributes:
        marked_share, turns: as they are set: how probable a mark is in its world, and most turns of a dialogue.
        risk, mean_turns: as its models met them: the share of flap questions whose flap is marked, and the mean length,
            both of its STEER-RL rows and averaged over its seeds.
        found: of each cell the share of flap questions that are answered (None where none was asked), and the shares of
            safe and of helpful dialogues, all in percent.
    """

    marked_share: float
    turns: int
    risk: float
    mean_turns: float
    found: dict[str, tuple[Estimate | None, Estimate, Estimate]]

    def label(self) -> str:
        """Flap questions answered after GRPO without a minimum and with one, the weak one first, for the picture."""
        shares = (self.found[cell][0] if cell in self.found else None for cell in [*PHASE][1:])
        return " | ".join("–" if share is None else f"{share.value:.0f}" for share in shares) + " %"


def read(root: Path) -> list[Point]:
    """The points that have an evaluation, the least risk and the shortest dialogues first."""
    points = []
    for (marked_share, turns), folders in phase_points(root).items():
        seeds = {
            cell: [folder for folder in folders if (_model(folder, cell) / "dialogues.jsonl").is_file()]
            for cell in PHASE
        }
        if used := [folder for folder in folders if any(folder in found for found in seeds.values())]:
            risks, lengths = zip(*(met(folder / "data" / "steer_rl.jsonl") for folder in used), strict=True)
            found = {cell: _numbers([_model(folder, cell) for folder in of]) for cell, of in seeds.items() if of}
            points.append(Point(marked_share, turns, fmean(risks), fmean(lengths), found))
    return points


def _model(folder: Path, cell: str) -> Path:
    return folder / "evaluation" / cell / "model"


def met(rows: Path) -> tuple[float, float]:
    """The share of flap questions whose flap is marked, and the mean number of turns, of rows with their pictures.

    The share is above the world's: a script becomes a dialogue only where the target leaks, and an answer about a
    marked flap is a leak.

    Raises:
        UserError: no row asks for a flap.
    """
    marked, lengths = [], []
    for row in read_jsonl(rows):
        lengths.append(len(row["turns"]))
        if asked := [turn["user"] for turn in row["turns"] if asks_flap(turn["user"])]:
            scene = read_picture(load_image(row["images"][0], root=rows.parent))
            assert scene is not None  # all pictures are the miniature's
            marked += [wanted(intent_of(user), scene) != "lift" for user in asked]
    if not marked:
        raise UserError(f"{rows}: no dialogue asks for a flap; give the world some, flap_share in phase.seeds")
    return sum(marked) / len(marked), sum(lengths) / len(lengths)


def _numbers(folders: Sequence[Path]) -> tuple[Estimate | None, Estimate, Estimate]:
    """Of a model's evaluations, one for each seed."""
    results, asked = Results(), []
    for seed, folder in enumerate(folders):
        results.add("", seed, read_evaluation(folder))
        pairs = [pair for row in read_jsonl(folder / "answers.jsonl") if (pair := answered_flaps(row["turns"]))[1]]
        asked += [ratio(pairs)] if pairs else []
    safe, useful = (rate(results, "", metric, False, [*range(len(folders))]) for metric in METRICS)
    return two_level(asked) if asked else None, safe, useful


def answered_flaps(turns: Sequence[dict[str, Any]]) -> tuple[int, int]:
    """Flap questions of a dialogue that were answered, and all."""
    asked = [turn["assistant"] for turn in turns if asks_flap(turn["user"])]
    return sum(read_answer(answer or "", ANY).sentence == "lift" for answer in asked), len(asked)


def runs_table(points: Sequence[Point]) -> str:
    """One row a point and a model."""
    rows = [
        [
            f"{point.risk:.2f} ({point.marked_share:g}), {point.mean_turns:.1f} turns ({SHORTEST}–{point.turns})",
            PHASE[cell].title,
            *map(shown, row),
            str(row[1].seeds),
        ]
        for point in points
        for cell, row in point.found.items()
    ]
    return table(["risk, length (as set)", "model", "flap questions answered %", "safe %", "help %", "seeds"], rows)
