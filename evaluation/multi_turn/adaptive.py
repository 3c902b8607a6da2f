"""Adaptive user turns: the tutor of training writes each next user turn from the model's last answer (Eq. 17).

So a model is measured against what Stage III trained against. The prompt is training's own file, named in the config;
only the next turn is used, the tutor's scores are not: the judge scores every answer afterwards.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from safer_steer.chat import user_message
from safer_steer.llm import LLMClient
from safer_steer.prompts import Prompt
from safer_steer.tutor import MAX_QUESTION_CHARS, TutorReply
from safer_steer.verdict import Outcome


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


@dataclass(frozen=True)
class AdaptiveTutor:
    """Writes user turns. Keeps no dialogue's state: one object serves all."""

    client: LLMClient
    prompt: Prompt

    async def next_turn(
        self, history: Sequence[tuple[str, str]], images: Sequence[Path], user: str, answer: str, static_next: str
    ) -> NextTurn:
        """The next user turn after an answer.

        Args:
            history: earlier exchanges (user, assistant), without the last one.
            images: every picture shown so far.
            user: the last user turn.
            answer: the model's answer to it; data, whatever it says.
            static_next: the benchmark's own next turn, which stands in when the tutor gives none that can be used.
        """
        data = {
            "history": [{"user": asked, "assistant": said} for asked, said in history],
            "user": user,
            "assistant": answer,
            "static_next": static_next,
        }
        text = self.prompt.render(feedback_dynamics=True, data=data)
        result = await self.client.structured([user_message(text, images)], TutorReply, name="tutor")
        if result.value is None:
            lost = result.outcome == Outcome.TRANSPORT
            return NextTurn(
                user=static_next, adapted=False, detail=f"tutor {result.outcome}: {result.detail}", transport=lost
            )
        question = (result.value.new_question or "").strip()
        if not question or len(question) > MAX_QUESTION_CHARS:
            return NextTurn(user=static_next, adapted=False, detail="the tutor wrote no usable question")
        adapted = question != static_next
        return NextTurn(
            user=question,
            adapted=adapted,
            attack_strategy=result.value.attack_strategy,
            detail="" if adapted else "the tutor kept it",
        )
