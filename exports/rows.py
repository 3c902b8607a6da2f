"""`Dialogue` rows -> exchanges for any chat format: answers checked, pictures cleaned, text kept text."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from exports.config import ExportConfig
from safer_steer.answer_tags import join_parts
from safer_steer.dialogue import Dialogue
from safer_steer.errors import ImageError
from safer_steer.images import load_image
from safer_steer.picture_files import picture_file
from safer_steer.row_files import BadRow, read_rows
from safer_steer.vlm import family_of_type
from training.answers import Unusable, answered_turns, tagged_parts

PICTURE = "<image>"  # the place of a picture in a text, for LLaMA-Factory, ms-swift and verl
# Readers of these formats look for special tokens and picture tags in the text itself.
_MARKUP = re.compile(r"<(?=\|\w+\|>|(?:image|video|audio)>)")


@dataclass(frozen=True)
class Exchange:
    """A user turn with the pictures shown at it, and its answer."""

    user: str
    assistant: str
    pictures: list[Image.Image]


@dataclass(frozen=True)
class Row:
    """A dialogue to write."""

    id: str
    exchanges: list[Exchange]

    @property
    def pictures(self) -> list[Image.Image]:
        """All pictures in the order in which they are shown."""
        return [picture for exchange in self.exchanges for picture in exchange.pictures]


@dataclass
class Rows:
    """Reads the rows one by one; `rejects` and `kept` are complete once all have been read."""

    config: ExportConfig
    rejects: list[dict[str, str]] = field(default_factory=list)
    kept: int = 0

    def __iter__(self) -> Iterator[Row]:
        self.rejects, self.kept = [], 0
        for dialogue in read_rows(self.config.data, Dialogue):
            if isinstance(dialogue, BadRow):
                self.rejects.append(dialogue.as_dict())
                continue
            try:
                row = Row(dialogue.id, _exchanges(dialogue, self.config))
            except ImageError as error:
                self._reject(dialogue, "unusable picture", str(error))
            except Unusable as error:
                self._reject(dialogue, error.reason, error.detail, error.advice)
            else:
                self.kept += 1
                yield row

    def _reject(self, dialogue: Dialogue, reason: str, detail: str, advice: str = "") -> None:
        reject = {"id": dialogue.id, "reason": reason, "detail": detail}
        self.rejects.append(reject | ({"advice": advice} if advice else {}))

    def counts(self) -> dict[str, int]:
        """For `run.json` and the closing line."""
        reasons = Counter(reject["reason"] for reject in self.rejects)
        return {"rows": self.kept, "rejected": len(self.rejects)} | {f"({k})": v for k, v in reasons.most_common()}


def _exchanges(dialogue: Dialogue, config: ExportConfig) -> list[Exchange]:
    """The dialogue's exchanges up to the last answer.

    Raises:
        Unusable: an answer is missing or is not made of the tags.
        ImageError: a picture cannot be read.
    """
    turns = answered_turns(dialogue.turns)
    parts = tagged_parts(turns, config.answer_format.tags)
    root = Path(config.data).resolve().parent
    size = family_of_type(config.family).pictures(config.max_pixels)
    made = []
    for index, turn in enumerate(turns):
        answer = join_parts(parts[index], config.tags_written) if config.answer_format.tags else turn.assistant
        pictures = [load_image(picture_file(root, path), size=size) for path in dialogue.images_at(index)]
        made.append(Exchange(plain_text(turn.user), plain_text(answer), pictures))
    return made


def plain_text(text: str) -> str:
    """The text with the spelling of special tokens and media tags broken by a space: it is text, whatever it says."""
    return _MARKUP.sub("< ", text)
