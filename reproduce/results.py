"""What evaluation left behind, by cell and seed: `Results`, the only input of claims, tables and curves.

`<root>/seed_N/evaluation/<cell>/model/{dialogues,answers,verdicts}.jsonl` -> `load` -> `Results`.
"""

from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from miniature.language import asks_flap
from miniature.seeds import BENCHMARKS
from miniature.single_turn import WAYS
from safer_steer.store import read_jsonl

# What the oracle judge says of an answer that names what the picture does not show (`miniature.rules.judge_scores`).
UNGROUNDED = "names what the picture does not show"
MULTI_TURN = tuple(BENCHMARKS)
SINGLE_TURN = tuple(WAYS)


@dataclass(frozen=True)
class Played:
    """One dialogue as one model played it; see `evaluation.multi_turn.aggregate.dialogue_table`.

    Attributes:
        safe, help: whether it passes; a dialogue without any scored turn is not here, only counted.
        over_refused: harmless, useless turns of a benign dialogue; None for risk dialogues.
        ungrounded: scored turns whose answer names what the picture does not show.
        flap: whether a turn asks for a flap.
        last_turn, failed: survival; None for single-turn rows.
    """

    id: str
    benchmark: str
    single_turn: bool
    kind: str
    safe: bool
    help: bool
    scored: int
    over_refused: int | None = None
    ungrounded: int = 0
    flap: bool = False
    last_turn: int | None = None
    failed: bool | None = None

    @property
    def joint(self) -> bool:
        """Both."""
        return self.safe and self.help


@dataclass(frozen=True)
class Evaluated:
    """One cell of one seed: its scored dialogues, and the counts next to them."""

    dialogues: list[Played]
    unscored: int = 0  # turns without a verdict
    left_out: int = 0  # dialogues without a scored turn

    def of(self, single_turn: bool) -> list[Played]:
        """The single-turn rows, or the multi-turn dialogues; never both."""
        return [item for item in self.dialogues if item.single_turn == single_turn]


@dataclass
class Results:
    """cell -> seed -> what it did."""

    cells: dict[str, dict[int, Evaluated]] = field(default_factory=lambda: defaultdict(dict))

    def add(self, cell: str, seed: int, evaluated: Evaluated) -> None:
        """Takes in one evaluation."""
        self.cells[cell][seed] = evaluated

    def seeds(self, *cells: str, kinds: tuple[bool, ...] = ()) -> list[int]:
        """Seeds for which all the cells are there, with rows of each of `kinds` (True: single-turn ones)."""
        having = [
            {seed for seed, found in self.cells.get(cell, {}).items() if all(found.of(kind) for kind in kinds)}
            for cell in cells
        ]
        return sorted(set.intersection(*having)) if having else []

    def without_flaps(self) -> "Results":
        """The same without the dialogues that ask for a flap, which single-turn data never do."""
        kept = Results()
        for cell, by_seed in self.cells.items():
            for seed, found in by_seed.items():
                kept.add(cell, seed, replace(found, dialogues=[item for item in found.dialogues if not item.flap]))
        return kept


def load(root: Path, cells: list[str], seeds: list[int]) -> Results:
    """Reads every evaluation that is there; what is missing is simply not in the results."""
    results = Results()
    for cell in cells:
        for seed in seeds:
            folder = root / f"seed_{seed}" / "evaluation" / cell / "model"
            if (folder / "dialogues.jsonl").is_file():
                results.add(cell, seed, read_evaluation(folder))
    return results


def read_evaluation(folder: Path) -> Evaluated:
    """One model folder of evaluation."""
    ungrounded: dict[str, int] = defaultdict(int)
    for row in read_jsonl(folder / "verdicts.jsonl"):
        scores = row["scores"] or {}
        ungrounded[row["dialogue"]] += UNGROUNDED in scores.get("helpfulness_rationale", "")
    answers = read_jsonl(folder / "answers.jsonl")
    flaps = {row["id"] for row in answers if any(asks_flap(turn["user"]) for turn in row["turns"])}
    dialogues, unscored, left_out = [], 0, 0
    for row in read_jsonl(folder / "dialogues.jsonl"):
        unscored += row["unscored"]
        if row["safe"] is None:
            left_out += 1
            continue
        dialogues.append(_played(row, ungrounded[row["id"]], row["id"] in flaps))
    return Evaluated(dialogues, unscored, left_out)


def _played(row: dict[str, Any], ungrounded: int, flap: bool) -> Played:
    kept = {name: row[name] for name in Played.__dataclass_fields__ if name in row}
    return Played(**kept, ungrounded=ungrounded, flap=flap)
