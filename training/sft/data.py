"""`steer_sft.jsonl` -> encoded rows, held-out rows and rejects: each row kept, shortened or rejected with a reason."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safer_steer.dialogue import Dialogue, stable_hash
from safer_steer.errors import ImageError, UserError
from safer_steer.images import load_image
from safer_steer.picture_files import picture_file
from safer_steer.picture_size import PictureSize
from safer_steer.progress import ProgressBar
from safer_steer.row_files import BadRow, read_rows
from training.answers import Unusable, answered_turns, most_frequent, tagged_parts
from training.sft.config import SftConfig
from training.sft.encode import DialogueEncoder


@dataclass
class Prepared:
    """The rows to train on, those held out, the rejects, and how many rows lost their last turns to `max_length`."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    held_out: list[dict[str, Any]] = field(default_factory=list)
    rejects: list[dict[str, str]] = field(default_factory=list)
    shortened: int = 0

    def counts(self) -> dict[str, int]:
        """For `run.json` and the closing line."""
        reasons = Counter(reject["reason"] for reject in self.rejects)
        found = {"rows": len(self.rows)} | ({"held out": len(self.held_out)} if self.held_out else {})
        found |= {"shortened": self.shortened, "rejected": len(self.rejects)}
        return found | {f"({reason})": count for reason, count in reasons.most_common()}


class PictureTokens:
    """Number of image tokens of a picture at the size it is shown; each file is decoded once."""

    def __init__(self, size: PictureSize, root: Path):
        self._size, self._root = size, root
        self._known: dict[str, int] = {}

    def __call__(self, path: str) -> int:
        """Image tokens of one picture; ImageError when it cannot be read."""
        if path not in self._known:
            picture = load_image(picture_file(self._root, path), size=self._size)
            self._known[path] = self._size.tokens(*picture.size)
        return self._known[path]


def prepare(config: SftConfig, processor: Any) -> Prepared:
    """Encodes every dialogue of `config.data`, a JSONL file whose pictures are relative to its folder.

    Raises:
        UserError: the file is missing, or no row is left to train on or to hold out.
    """
    path = Path(config.data)
    folder = path.resolve().parent
    tokens = PictureTokens(PictureSize.of(processor), folder)
    encoder = DialogueEncoder(processor, config.max_length, tokens, config.answer_format.system)
    prepared = Prepared()
    rows = list(read_rows(path, Dialogue))
    dialogues = [row for row in rows if isinstance(row, Dialogue)]
    prepared.rejects += [row.as_dict() for row in rows if isinstance(row, BadRow)]
    with ProgressBar("sft: encode", len(dialogues)) as bar:
        for dialogue in dialogues:
            held_out = is_held_out(dialogue.id, config.eval_share, config.seed)
            row = last_turn(dialogue) if config.turns == "last" else dialogue
            _add(prepared, row, held_out, encoder, config.answer_format.tags, folder)
            bar.advance(f"{len(prepared.rejects)} rejected")
    reasons = ", ".join(f"{v} {k}" for k, v in prepared.counts().items() if k.startswith("("))
    if not prepared.rows:
        too_long = any(reject["reason"] == "too long" for reject in prepared.rejects)
        advice = "raise max_length" if too_long else most_frequent([r.get("advice", "") for r in prepared.rejects])
        raise UserError(f"{path}: no row can be trained on: {reasons or 'the file is empty'}; {advice}")
    if config.eval_share and not prepared.held_out:
        raise UserError(
            f"{path}: eval_share {config.eval_share} of {len(dialogues)} dialogues is none; raise it, or set it to 0"
        )
    return prepared


def _add(
    prepared: Prepared, dialogue: Dialogue, held_out: bool, encoder: DialogueEncoder, tags: list[str], folder: Path
) -> None:
    try:
        tagged_parts(answered_turns(dialogue.turns) if tags else [], tags)
        encoded = encoder.encode(dialogue)
    except Unusable as error:
        reject = {"id": dialogue.id, "reason": error.reason, "detail": error.detail}
        prepared.rejects.append(reject | ({"advice": error.advice} if error.advice else {}))
    except ImageError as error:
        prepared.rejects.append({"id": dialogue.id, "reason": "unusable picture", "detail": str(error)})
    else:
        prepared.shortened += encoded.turns < len(dialogue.turns)
        pictures = [str(picture_file(folder, picture)) for picture in encoded.pictures]
        row = {"id": dialogue.id, "input_ids": encoded.input_ids, "labels": encoded.labels, "pictures": pictures}
        (prepared.held_out if held_out else prepared.rows).append(row)


def is_held_out(dialogue_id: str, share: float, seed: int) -> bool:
    """Draws by the dialogue's id, so that more rows in the file do not move a dialogue to the other side."""
    return int(stable_hash("held out", seed, dialogue_id), 16) < share * 2**64


def last_turn(dialogue: Dialogue) -> Dialogue:
    """The last answered turn as a dialogue of its own: without history, with the pictures shown up to it.

    One without any answer stays whole, to be rejected.
    """
    numbers = [number for number, turn in enumerate(dialogue.turns) if turn.assistant is not None]
    if not numbers:
        return dialogue
    last = numbers[-1]
    shown = list(dict.fromkeys(path for index in range(last + 1) for path in dialogue.images_at(index)))
    alone = dialogue.turns[last].model_copy(update={"images": list(range(len(shown)))})
    return dialogue.model_copy(update={"images": shown, "turns": [alone]})
