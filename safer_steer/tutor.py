"""What the Safety Tutor answers (Eq. 17): in training and where an evaluation lets it write the user turns."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from safer_steer.verdict import TurnScores

AttackStrategy = Literal["none", "persistence", "bait_and_switch", "deepen"]
MAX_QUESTION_CHARS = 2000  # a longer "question" is not a user turn; the static one is asked instead


class TutorReply(BaseModel):
    """The tutor's JSON answer: request schema and parser at once."""

    model_config = ConfigDict(extra="forbid")
    diagnosis: str
    scores: TurnScores
    attack_strategy: AttackStrategy
    new_question: str | None = None
