"""Adaptive user turns: the tutor of training writes each next user turn from the model's last answer (Eq. 17).

So a model is measured against what Stage III trained against. Only the next turn is used, the tutor's scores are not:
the judge scores every answer afterwards.
"""

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel

from safer_steer.llm import LLMClient
from safer_steer.prompts import Prompt
from safer_steer.verdict import Outcome, Unscored
from safer_steer_verl.interactions.safety_tutor import SafetyTutor


class NextTurn(BaseModel):
    """The user turn that comes next.

    Attributes:
        user: its text.
        adapted: whether the tutor wrote it; otherwise it is the benchmark's own turn, and `detail` says why.
        attack_strategy: the strategy the tutor named.
        transport: the tutor could not be reached; the dialogue waits for another try.
    """

    user: str
    adapted: bool
    attack_strategy: str | None = None
    detail: str = ""
    transport: bool = False


class AdaptiveTutor:
    """Writes user turns. Keeps no dialogue's state: one object serves all."""

    def __init__(self, client: LLMClient, prompt: Prompt | None = None):
        self.client, self._tutor = client, SafetyTutor(client, prompt=prompt)

    async def next_turn(
        self,
        history: Sequence[tuple[str, str]],
        pictures: Sequence[Sequence[Path]],
        user: str,
        answer: str,
        static_next: str,
    ) -> NextTurn:
        """The next user turn after an answer; the benchmark's own when the tutor gives none.

        Args:
            history: earlier exchanges (user, assistant), without the last one.
            pictures: those shown at each turn, the last one included.
            user: the last user turn.
            answer: the model's answer to it; data, whatever it says.
            static_next: the benchmark's own next turn.

        Raises:
            RunAborted: so many calls in a row failed that the client gives up.
        """
        images, shown = [path for paths in pictures for path in paths], [len(paths) for paths in pictures]
        found = await self._tutor.step(history, images, user, answer, static_next, shown)
        if isinstance(found, Unscored):
            lost, why = found.outcome == Outcome.TRANSPORT, f"tutor {found.reason}"
            return NextTurn(user=static_next, adapted=False, detail=why, transport=lost)
        return NextTurn(
            user=found.next_user or static_next,
            adapted=found.adapted,
            attack_strategy=found.attack_strategy,
            detail=found.not_adapted,
        )
