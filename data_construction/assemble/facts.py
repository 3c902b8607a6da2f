"""The first of the assembly's two passes: of each row only what choosing needs, and where the row is in its file.

100 K dialogues of ten turns with their attack transcripts are gigabytes; their facts are some 70 megabytes. The second
pass reads the chosen rows again, one by one.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data_construction.assemble.config import Measures
from safer_steer.dialogue import Dialogue, Kind
from safer_steer.store import read_with_offsets


@dataclass(frozen=True, slots=True)
class RowFacts:
    """One dialogue without its text; `offset` is the place of its line in `path`, in bytes."""

    id: str
    candidate: str  # id of the Stage I row that it was made of
    kind: Kind
    turns: int  # of the user
    images: tuple[str, ...]
    originals: tuple[str, ...]  # the same as the data set holds them, before the visual injector; see `Seed.content`
    answered: bool  # every turn has an assistant turn
    measures: Measures | None  # when every turn has scores
    seed: str
    split: str
    benchmark: str | None
    path: Path
    offset: int

    @classmethod
    def of(cls, row: Dialogue, path: Path, offset: int) -> "RowFacts":
        """The facts of a row of Stage I or II."""
        scores = [turn.scores for turn in row.turns if turn.scores]
        return cls(
            id=row.id,
            candidate=row.meta.get("template", row.id),
            kind=row.kind,
            turns=len(row.turns),
            images=tuple(row.images),
            originals=original_pictures(row),
            answered=all(turn.assistant for turn in row.turns),
            measures=Measures.of(scores) if len(scores) == len(row.turns) else None,
            seed=row.meta["seed"],
            split=row.meta["split"],
            benchmark=row.meta.get("benchmark"),
            path=path,
            offset=offset,
        )

    def read(self) -> Dialogue:
        """The whole row, read from its file."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return Dialogue.model_validate(json.loads(file.readline()))


def original_pictures(row: Dialogue) -> tuple[str, ...]:
    """The row's pictures as its data set holds them: an injected picture stands for the one it was made from, and a
    row without any has its seed's question for one.
    """
    if not row.images:
        return (row.meta.get("seed_question", row.meta["seed"]),)
    injected = row.meta.get("injector")
    return tuple(injected["original"] if injected and image == injected["image"] else image for image in row.images)


def row_facts(path: Path) -> Iterator[RowFacts]:
    """The facts of a file's rows, in file order.

    Raises:
        UserError: the file is missing, or a line is no dialogue (the message names file:line).
    """
    path = path.resolve()  # rows may be read by a worker with another working folder
    return (RowFacts.of(row, path, offset) for offset, row in read_with_offsets(path, Dialogue))
