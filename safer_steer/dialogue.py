"""The row types every stage reads and writes: `Seed` (a picture, or none, and a question) and `Dialogue` (2-10 turns
about pictures, or in words alone).
"""

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from safer_steer.rubric import TurnScores

Kind = Literal["benign", "obfuscated", "red_team"]
Pictures = Literal["required", "optional"]  # whether rows without a picture are rejected or taken
RISK_KINDS: tuple[Kind, ...] = ("obfuscated", "red_team")
MAX_TURNS = 10  # Sec. 4.2: dialogues of 2 to 10 turns; one turn is allowed for the single-turn ablation (Table 4)


class Seed(BaseModel):
    """A single-turn seed `(image, query)` (Sec. 4.2); `image` is a path relative to the file that holds the row, None
    where there is none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    id: str
    source: str
    image: str | None
    question: str
    answer: str | None = None
    meta: dict[str, Any] = {}

    @property
    def images(self) -> list[str]:
        """Its picture, or none."""
        return [] if self.image is None else [self.image]

    @property
    def content(self) -> str:
        """What two seeds must not share if they are to be in different splits: the picture, else the question."""
        return self.image or stable_hash(self.question.casefold().split())


class Turn(BaseModel):
    """One exchange: the user turn u_t, the static template turn it was made from, the assistant turn a_t and its
    scores s_t.

    `images` are indices into `Dialogue.images` of the pictures shown at this turn.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    user: str
    template: str | None = None
    assistant: str | None = None
    scores: TurnScores | None = None
    images: list[Annotated[int, Field(ge=0)]] = []
    meta: dict[str, Any] = {}


class Dialogue(BaseModel):
    """A dialogue D = (x, [(u_1, a_1) ... (u_T, a_T)]); image paths are relative to the file that holds the row."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    id: str
    source: str
    kind: Kind
    strategy: str | None
    images: list[str]
    turns: Annotated[list[Turn], Field(min_length=1)]
    meta: dict[str, Any] = {}

    @model_validator(mode="after")
    def _pictures_exist(self) -> "Dialogue":
        wrong = [i for turn in self.turns for i in turn.images if i >= len(self.images)]
        if wrong:
            raise ValueError(f"turns refer to picture(s) {wrong}, but the dialogue has {len(self.images)}")
        return self

    def images_at(self, turn_index: int) -> list[str]:
        """Paths of the pictures shown at a turn (0-based); all belong to turn 0 when no turn names any."""
        if any(turn.images for turn in self.turns):
            return [self.images[i] for i in self.turns[turn_index].images]
        return list(self.images) if turn_index == 0 else []


def stable_hash(*parts: Any) -> str:
    """16 hex digits of the SHA-256 of the parts' canonical JSON: the same in every process, unlike `hash()`."""
    text = json.dumps(parts, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def dialogue_id(source: str, seed_id: str, kind: str, strategy: str | None, content: list[str]) -> str:
    """The dialogue's id: a hash of where it comes from and what its user turns say."""
    return stable_hash(source, seed_id, kind, strategy, content)
