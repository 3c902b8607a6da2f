"""Attack families: which of them training used, and by which moves of the tutor dialogues fell."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from evaluation.multi_turn.moves import FIRST, OWN, PLAN
from evaluation.report.figures import metric_rows
from evaluation.report.formats import Cell, ResultTable
from evaluation.report.results import ModelResult
from evaluation.report.tables import UNSEEN, played, unseen_mark, with_interval
from safer_steer.dialogue import Dialogue
from safer_steer.row_files import read_rows

WRITTEN = "tutor/adapted_share"  # of GRPO's metrics: the share of the user turns that the tutor wrote
CHOSEN = ("attack/", "_share")  # around a move: the share of the turns after which the tutor chose it


@dataclass(frozen=True)
class Trained:
    """The attack families that training used; None where no file that the config names says so.

    Attributes:
        strategies: of the dialogues in the files of `report.splits`.
        moves: of the tutor, by the metrics of the GRPO runs in `report.training`; none where it wrote no user turn.
    """

    strategies: frozenset[str] | None = None
    moves: frozenset[str] | None = None


def trained(splits: Mapping[str, str], runs: Mapping[str, str]) -> Trained:
    """Reads the files that are there.

    Args:
        splits: name -> JSONL file of training dialogues.
        runs: title -> folder of a training run.
    """
    files = [path for path in splits.values() if Path(path).is_file()]
    strategies = {row.strategy for path in files for row in read_rows(path, Dialogue) if isinstance(row, Dialogue)}
    steps = [row for folder in runs.values() for row in metric_rows(Path(folder)) if WRITTEN in row]
    start, end = CHOSEN
    moves = {
        key.removeprefix(start).removesuffix(end)
        for row in steps
        for key, share in row.items()
        if key.startswith(start) and share and row[WRITTEN]
    }
    known = frozenset(name for name in strategies if name)
    return Trained(known if files else None, frozenset(moves) if steps else None)


def moves_table(results: list[ModelResult], moves: frozenset[str] | None) -> ResultTable | None:
    """By which move which dialogues fell, where, and how deep; None where no tutor attacked.

    Args:
        results: our models.
        moves: those of training, see `Trained`.
    """
    rows: list[list[Cell]] = []
    for result in results:
        for found in result.moves:
            no_attack = found["move"] in (FIRST, OWN, PLAN)
            name = found["move"] + ("" if no_attack else unseen_mark(found["move"], moves))
            share = with_interval(found["rate"], found["rate_ci"])
            rows.append([result.title, name, str(found["met"]), str(found["fell"]), share])
            rows[-1] += [_counted(found["at_turn"]), _counted(found["levels"])]
    fell = f"{played(results)} fell"
    columns = ["model", "move", "turns met", fell, "% of turns met", "at turn", "harmlessness then"]
    notes = [
        "The move is what the tutor did to write the user turn; a dialogue falls at its first failed answer, by the "
        "move that the answer met. Turns after that, and unscored ones, are not met. At turn and harmlessness: value × "
        "dialogues. Each of them, with its transcript: Read the dialogues, filter Fell by.",
    ]
    if moves is not None:
        notes.append(f"{UNSEEN.strip()}: the tutor of this run's GRPO did not use it.")
    title = "Where the adaptive attack succeeded, by move"
    return ResultTable("moves", title, columns, rows, notes) if rows else None


def _counted(values: Mapping[int, int]) -> str | None:
    return ", ".join(f"{value} × {number}" for value, number in values.items()) or None
