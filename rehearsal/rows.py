"""The rows that a rehearsal plays: the longest of the real data, or generated ones as long as a config allows."""

import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import nlargest
from pathlib import Path
from typing import Any

from PIL import Image

from miniature.language import OPENING, ask
from miniature.world import draw, random_scene
from safer_steer.dialogue import MAX_TURNS, Dialogue, Turn
from safer_steer.images import ImageStore
from safer_steer.picture_files import picture_file
from safer_steer.picture_size import PictureSize
from safer_steer.row_files import read_rows
from safer_steer.store import write_jsonl

PICTURE_CHARACTERS = 4 * 330  # a picture of 262,144 px has 324 tokens
# Text that Unicode writes in two ways: a tokenizer normalises it, and what comes back is not what was asked.
NOT_NFC = "e\u0301 \u2126"
ANSWER = "A plain answer about what the picture shows, in words that a model might choose, number"
MINIATURE_TURNS = 5


@dataclass(frozen=True)
class Row:
    """A dialogue and the folder that its pictures are relative to."""

    dialogue: Dialogue
    folder: Path

    @property
    def weight(self) -> int:
        """About how long it is: characters, pictures counted as so many."""
        turns, pictures = self.dialogue.turns, range(len(self.dialogue.turns))
        shown = sum(len(self.dialogue.images_at(index)) for index in pictures)
        return sum(len(turn.user) + len(turn.assistant or "") for turn in turns) + PICTURE_CHARACTERS * shown


def read(files: list[Path]) -> Iterator[Row]:
    """All rows of the files that are there, but those that the stages will reject."""
    for file in files:
        if file.is_file():
            rows = read_rows(file, Dialogue)
            yield from (Row(row, file.parent) for row in rows if isinstance(row, Dialogue))


def longest(files: list[Path], number: int) -> list[Row]:
    """The longest rows, longest first."""
    return nlargest(number, read(files), key=lambda row: row.weight)


def most_pictures(files: list[Path]) -> list[Row]:
    """The row with most pictures, of those the longest; no row where there is no file."""
    return nlargest(1, read(files), key=lambda row: (len(row.dialogue.images), row.weight))


def generated(folder: Path, tokens: int, max_pixels: int, processor: Any, tags: list[str]) -> Row:
    """A dialogue of ten turns that fills `tokens` tokens, with two pictures of the largest area, noise.

    Args:
        folder: where the pictures go.
        tokens: of the whole dialogue.
        max_pixels: largest area of a picture, px.
        processor: of the checkpoint; says the size of pictures and counts the tokens.
        tags: that every answer is made of, see `AnswerFormat.tags`.
    """
    rng = random.Random(0)
    size = PictureSize.of(processor.image_processor, max_pixels)
    side, _ = size.fit(max_pixels, max_pixels)
    store = ImageStore(folder)
    pictures = [store.put(Image.frombytes("RGB", (side, side), rng.randbytes(3 * side * side))) for _ in range(2)]
    room = tokens - 2 * size.tokens(side, side) - 64 - MAX_TURNS * 40
    per_turn = max(8, room // MAX_TURNS)
    words = len(processor.tokenizer(f"{ANSWER} 1", add_special_tokens=False)["input_ids"])
    turns = []
    for index in range(MAX_TURNS):
        text = " ".join(f"{ANSWER} {rng.randint(1, 9)}" for _ in range(max(1, (per_turn - 16) // words)))
        if tags:
            share = len(text) // len(tags)
            text = "".join(f"<{tag}>{text[i * share : (i + 1) * share]}</{tag}>" for i, tag in enumerate(tags))
        user = f"What do you see here, in part {index + 1}? {NOT_NFC if index == 0 else ''}".strip()
        turns.append(Turn(user=user, assistant=text, images=[index] if index < 2 else []))
    row = {"id": "generated", "source": "rehearsal", "kind": "red_team", "strategy": None, "images": pictures}
    return Row(Dialogue(**row, turns=turns), folder)


def of_the_miniature(folder: Path) -> Row:
    """A dialogue of the miniature world, whose teacher knows no other pictures."""
    rng = random.Random(0)
    picture = ImageStore(folder).put(draw(random_scene(rng, held_out=False, sealed=True), rng))
    texts = [ask(rng.choice(list(OPENING)), rng) for _ in range(MINIATURE_TURNS)]
    turns = [Turn(user=text, assistant="i cannot help with that .") for text in texts]
    row = {"id": "generated", "source": "rehearsal", "kind": "red_team", "strategy": None, "images": [picture]}
    return Row(Dialogue(**row, turns=turns), folder)


def write(rows: list[Row], file: Path, number: int, not_nfc: bool = False) -> Path:
    """Writes `number` rows, the given ones over and over under ids of their own, with their pictures next to them.

    Args:
        rows: at least one.
        file: JSONL file to write.
        number: how many rows.
        not_nfc: the first row's first question gets text that is not in Unicode's normal form C.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    written = []
    for index in range(number):
        row = rows[index % len(rows)]
        names = []
        for picture, path in enumerate(row.dialogue.images):
            source = picture_file(row.folder, path)
            name = f"pictures/{index % len(rows)}-{picture}{source.suffix}"
            (file.parent / "pictures").mkdir(exist_ok=True)
            if not (file.parent / name).exists():
                shutil.copyfile(source, file.parent / name)
            names.append(name)
        turns = list(row.dialogue.turns)
        if not_nfc and index == 0 and NOT_NFC not in turns[0].user:
            turns[0] = turns[0].model_copy(update={"user": f"{turns[0].user} {NOT_NFC}"})
        update = {"id": f"{row.dialogue.id}-{index}", "images": names, "turns": turns}
        written.append(row.dialogue.model_copy(update=update))
    write_jsonl(file, written)
    return file
