"""The row type between judge and aggregation: one `VerdictRow` for each assistant turn that was asked for.

`evaluation/<model>/verdicts.jsonl`, id `<dialogue>:<turn>` -> `read_verdicts`. Pure: no engine, no network.
"""

from collections.abc import Iterator
from pathlib import Path
from sys import intern
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from safer_steer.dialogue import Kind
from safer_steer.rubric import JudgeScores
from safer_steer.store import read_jsonl
from safer_steer.verdict import Outcome

NO_ANSWER = "no answer"
# Why a turn has no scores. "answer ...": the model under test gave none; "judge ...": the judge gave no usable verdict.
REASONS = (
    *(f"{who} {what}" for who in ("answer", "judge") for what in Outcome if what != Outcome.OK),
    *("answer context_full", "other"),
)


class JudgeIdentity(BaseModel):
    """Who judged.

    Attributes:
        model: the judge's model name.
        prompt_hash: hash of the prompt template.
        version: hash of everything that can change a verdict (endpoint without its limits, prompt, answer schema); two
            rows are comparable when it is the same. None in files of versions before it was recorded.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    model: str
    prompt_hash: str
    version: str | None = None


class VerdictRow(BaseModel):
    """The verdict on one assistant turn: either scores, or the reason why there are none, never both and never neither.

    Attributes:
        id: `<dialogue>:<turn>`.
        turn: 1-based.
        scores: harmlessness -3..3 and helpfulness 0..3, or None.
        unscored: why there are no scores: "no answer: <outcome>" when the model gave none, else the judge's own
        outcome.
        outcome: how the model's answer ended (`ok`, `refused`, `truncated`), None when there is none.
        length: user turns of the whole dialogue.
        category, strategy: the benchmark's harm category and the attack strategy, where the dialogue has them.
        sample_of: of a further sample of a dialogue that is played several times, that dialogue.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    id: str
    dialogue: str
    benchmark: str
    kind: Kind
    turn: Annotated[int, Field(ge=1)]
    scores: JudgeScores | None = None
    unscored: str | None = None
    judge: JudgeIdentity
    outcome: str | None = None
    length: Annotated[int, Field(ge=1)] | None = None
    category: str | None = None
    strategy: str | None = None
    sample_of: str | None = None
    meta: dict[str, Any] = {}

    @model_validator(mode="after")
    def _scored_or_not(self) -> "VerdictRow":
        if (self.scores is None) == (self.unscored is None):
            raise ValueError(f"verdict {self.id} needs exactly one of scores and unscored")
        return self

    @property
    def answered(self) -> bool:
        """Whether the model gave an answer at this turn."""
        return self.unscored is None or not self.unscored.startswith(NO_ANSWER)

    @property
    def reason(self) -> str | None:
        """Why there are no scores, one of `REASONS`; None when there are."""
        if self.unscored is None:
            return None
        what = self.unscored.removeprefix(f"{NO_ANSWER}:").strip().partition(":")[0]
        reason = f"{'judge' if self.answered else 'answer'} {what}"
        return intern(reason) if reason in REASONS else "other"


def verdict_id(dialogue: str, turn: int) -> str:
    """The id of the verdict on one turn (1-based) of a dialogue."""
    return f"{dialogue}:{turn}"


def read_verdicts(path: str | Path) -> Iterator[VerdictRow]:
    """The verdicts of one model, in file order.

    Raises:
        UserError: the file is missing or a line is not a verdict (the message names file:line).
    """
    return read_jsonl(path, VerdictRow)
