"""From verdict rows to one small record a dialogue: the only state that aggregation and survival keep.

`verdicts.jsonl` -> `collect` -> `{dialogue: DialogueRecord}`, in one pass, rows in any order. A record holds one byte a
turn, so 100,000 dialogues of 10 turns take tens of megabytes.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from sys import intern

from evaluation.multi_turn.verdicts import NO_ANSWER, VerdictRow

# Why a turn has no scores. "answer ...": the model under test gave none; "judge ...": the judge gave no usable verdict.
REASONS = (
    *(f"answer {end}" for end in ("refused", "filtered", "truncated", "transport", "unparsed", "context_full")),
    *(f"judge {outcome}" for outcome in ("refused", "filtered", "truncated", "transport", "unparsed")),
    *("answer bad_request", "judge bad_request"),
    "other",
)
_UNSEEN = 0  # codes 1 to len(REASONS) stand for a reason
_SCORED = 64  # + 4 * (harmlessness + 3) + helpfulness


@dataclass(frozen=True)
class TurnScore:
    """A scored turn: index (1-based), harmlessness -3..3, helpfulness 0..3."""

    turn: int
    harmlessness: int
    helpfulness: int


@dataclass(slots=True)
class DialogueRecord:
    """What is known of one dialogue of one model.

    Attributes:
        length: user turns that the benchmark has for it; where rows do not say, the last turn seen.
        declined: answers that the model's own API marked as a refusal.
        cut: answers cut at the token limit.
    """

    benchmark: str
    kind: str
    category: str | None = None
    strategy: str | None = None
    length: int = 0
    declined: int = 0
    cut: int = 0
    _codes: bytearray = field(default_factory=bytearray)

    def add(self, row: VerdictRow) -> None:
        """Takes in the verdict on one turn."""
        if row.turn > len(self._codes):
            self._codes.extend(bytes(row.turn - len(self._codes)))
        self._codes[row.turn - 1] = _code(row)
        self.length = max(self.length, row.length or row.turn)
        self.declined += row.outcome == "refused"
        self.cut += row.outcome == "truncated"

    def scores(self) -> Iterator[TurnScore]:
        """The scored turns in order."""
        for turn, code in enumerate(self._codes, 1):
            if code >= _SCORED:
                yield TurnScore(turn, (code - _SCORED) // 4 - 3, (code - _SCORED) % 4)

    def harmlessness_at(self, turn: int) -> int | None:
        """Harmlessness of a turn (1-based); None when it is unscored or was never asked."""
        code = self._codes[turn - 1] if turn <= len(self._codes) else _UNSEEN
        return (code - _SCORED) // 4 - 3 if code >= _SCORED else None

    def unscored_turns(self) -> list[int]:
        """The turns (1-based) that were asked for and have no scores."""
        return [turn for turn, code in enumerate(self._codes, 1) if _UNSEEN < code < _SCORED]

    def reasons(self) -> Counter[str]:
        """Why turns are unscored."""
        return Counter(REASONS[code - 1] for code in self._codes if _UNSEEN < code < _SCORED)

    def totals(self) -> tuple[int, int, int]:
        """(sum of harmlessness, sum of helpfulness, number of scored turns)."""
        scored = [code - _SCORED for code in self._codes if code >= _SCORED]
        return sum(code // 4 - 3 for code in scored), sum(code % 4 for code in scored), len(scored)


def _code(row: VerdictRow) -> int:
    if row.scores is not None:
        return _SCORED + 4 * (row.scores.harmlessness + 3) + row.scores.helpfulness
    why = row.unscored or ""
    who = "answer" if why.startswith(NO_ANSWER) else "judge"
    what = why.removeprefix(f"{NO_ANSWER}:").strip().partition(":")[0]
    reason = f"{who} {what}"
    return REASONS.index(reason if reason in REASONS else "other") + 1


def collect(verdicts: Iterable[VerdictRow]) -> dict[str, DialogueRecord]:
    """A record for each dialogue id, in the order of their first rows."""
    records: dict[str, DialogueRecord] = {}
    for row in verdicts:
        record = records.get(row.dialogue)
        if record is None:
            record = records[row.dialogue] = DialogueRecord(
                intern(row.benchmark),
                intern(row.kind),
                row.category and intern(row.category),
                row.strategy and intern(row.strategy),
            )
        record.add(row)
    return records
