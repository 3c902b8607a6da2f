"""`steer_sft.jsonl` -> encoded rows and `rejects.jsonl`: each row kept, shortened or rejected with a reason."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safer_steer.dialogue import Dialogue
from safer_steer.errors import UserError
from safer_steer.images import ImageError, load_image
from safer_steer.progress import ProgressBar
from safer_steer.store import read_jsonl
from training.sft.encode import DialogueEncoder, Unusable


@dataclass
class Prepared:
    """The rows to train on, the rejects, and how many rows lost their last turns to `max_length`."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    rejects: list[dict[str, str]] = field(default_factory=list)
    shortened: int = 0

    def counts(self) -> dict[str, int]:
        """For `run.json` and the closing line."""
        reasons = Counter(reject["reason"] for reject in self.rejects)
        found = {"rows": len(self.rows), "shortened": self.shortened, "rejected": len(self.rejects)}
        return found | {f"({reason})": count for reason, count in reasons.most_common()}


class PictureTokens:
    """Number of image tokens of a picture after the processor's resizing; each file is decoded once."""

    def __init__(self, image_processor: Any, root: Path):
        self._processor, self._root = image_processor, root
        self._known: dict[str, int] = {}

    def __call__(self, path: str) -> int:
        """Image tokens of one picture; ImageError when it cannot be read."""
        if path not in self._known:
            picture = load_image(path, root=self._root)
            patches = self._processor.get_number_of_image_patches(picture.height, picture.width, {})
            self._known[path] = patches // self._processor.merge_size**2
        return self._known[path]


def prepare(path: str | Path, processor: Any, max_length: int, system_prompt: str | None = None) -> Prepared:
    """Encodes every dialogue of a JSONL file.

    Args:
        path: JSONL of `Dialogue` rows; pictures are relative to its folder.
        processor: the checkpoint's processor.
        max_length: tokens a row may have.
        system_prompt: replaces the template's default system turn.

    Raises:
        UserError: the file is missing or damaged, or no row is left.
    """
    folder = Path(path).resolve().parent
    encoder = DialogueEncoder(processor, max_length, PictureTokens(processor.image_processor, folder), system_prompt)
    prepared = Prepared()
    dialogues = list(read_jsonl(path, Dialogue))
    with ProgressBar("sft: encode", len(dialogues)) as bar:
        for dialogue in dialogues:
            try:
                encoded = encoder.encode(dialogue)
            except Unusable as error:
                prepared.rejects.append({"id": dialogue.id, "reason": error.reason, "detail": error.detail})
            except ImageError as error:
                prepared.rejects.append({"id": dialogue.id, "reason": "unusable picture", "detail": str(error)})
            else:
                prepared.shortened += encoded.turns < len(dialogue.turns)
                pictures = [str(folder / picture) for picture in encoded.pictures]
                row = {"id": dialogue.id, "input_ids": encoded.input_ids, "labels": encoded.labels}
                prepared.rows.append(row | {"pictures": pictures})
            bar.advance(f"{len(prepared.rejects)} rejected")
    if not prepared.rows:
        reasons = ", ".join(f"{v} {k}" for k, v in prepared.counts().items() if k.startswith("("))
        raise UserError(
            f"{path}: no row can be trained on: {reasons or 'the file is empty'}; mend the rows or max_length"
        )
    return prepared
