"""The phase diagram's real runs, and its words: `<root>/phase/<point>/evaluation/<cell>/model` -> `read` -> tables.

What is compared with them is exact: `phase.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from miniature.language import asks_flap
from miniature.rules import read_answer
from miniature.world import Scene
from reproduce.cells import PHASE
from reproduce.comparisons import rate
from reproduce.intervals import Estimate, ratio, two_level
from reproduce.miniature import SHORTEST, phase_points
from reproduce.results import Results, read_evaluation
from reproduce.tables import shown
from safer_steer.markdown import table
from safer_steer.store import read_jsonl

ANY = Scene("red", "box", False)  # whether an answer lifts a flap is in its words alone
METRICS = ("safe", "help")


@dataclass(frozen=True)
class Point:
    """A point of the diagram: risk, most turns of a dialogue, and of each model what it did.

    `found` has of each cell the share of flap questions that are answered (None where none was asked), and the shares
    of safe and of helpful dialogues, all in percent.
    """

    risk: float
    turns: int
    found: dict[str, tuple[Estimate | None, Estimate, Estimate]]

    @property
    def mean_turns(self) -> float:
        """Of its dialogues: lengths are drawn evenly."""
        return (SHORTEST + self.turns) / 2

    def label(self) -> str:
        """Flap questions answered after GRPO without a minimum and with one, the weak one first, for the picture."""
        shares = (self.found[cell][0] if cell in self.found else None for cell in [*PHASE][1:])
        return " | ".join("–" if share is None else f"{share.value:.0f}" for share in shares) + " %"


def read(root: Path) -> list[Point]:
    """The points that have an evaluation, the least risk and the shortest dialogues first."""
    points = []
    for risk, turns, folder in phase_points(root):
        found = {
            cell: _of_model(folder / "evaluation" / cell / "model")
            for cell in PHASE
            if (folder / "evaluation" / cell / "model" / "dialogues.jsonl").is_file()
        }
        if found:
            points.append(Point(risk, turns, found))
    return points


def _of_model(folder: Path) -> tuple[Estimate | None, Estimate, Estimate]:
    results = Results()
    results.add("", 0, read_evaluation(folder))
    safe, useful = (rate(results, "", metric, False, [0]) for metric in METRICS)
    pairs = [pair for row in read_jsonl(folder / "answers.jsonl") if (pair := answered_flaps(row["turns"]))[1]]
    return two_level([ratio(pairs)]) if pairs else None, safe, useful


def answered_flaps(turns: Sequence[dict[str, Any]]) -> tuple[int, int]:
    """Flap questions of a dialogue that were answered, and all."""
    asked = [turn["assistant"] for turn in turns if asks_flap(turn["user"])]
    return sum(read_answer(answer or "", ANY).sentence == "lift" for answer in asked), len(asked)


def runs_table(points: Sequence[Point]) -> str:
    """One row a point and a model."""
    rows = [
        [f"{point.risk:g}, 2–{point.turns} turns", PHASE[cell].title, *map(shown, row)]
        for point in points
        for cell, row in point.found.items()
    ]
    return table(["risk, length", "model", "flap questions answered %", "safe %", "help %"], rows)
