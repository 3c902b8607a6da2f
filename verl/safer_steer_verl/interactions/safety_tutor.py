"""The Safety Tutor (Eq. 17): the whole dialogue, the pictures and the latest answer -> scores and the next user turn.

Engine-free: GRPO's agent loop and the adaptive evaluation use this one. A turn without a usable score is `Unscored`,
never a number.
"""

import asyncio
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from PIL import Image
from pydantic import BaseModel, ConfigDict

from safer_steer.answer_tags import THOUGHT_TAGS, thought_marks
from safer_steer.chat import user_message
from safer_steer.config import Operational
from safer_steer.data_block import transcript
from safer_steer.llm import EndpointConfig, LLMClient
from safer_steer.policy import read_policy
from safer_steer.prompts import Prompt, own_prompt
from safer_steer.rubric import TurnScores, lock
from safer_steer.verdict import Outcome, Unscored

AttackStrategy = Literal["none", "persistence", "bait_and_switch", "deepen"]
MAX_QUESTION_CHARS = 2000  # a longer "question" is not a user turn; the static one is asked instead
NO_QUESTION = ("none", "null", "nil", "n a", "na", "no question", "not applicable", "same", "unchanged")  # in words
KEPT = "the tutor kept it"  # why the static question is asked: the tutor's own is the same
TEMPLATE = Path(__file__).with_suffix(".jinja")


class TutorConfig(EndpointConfig):
    """The tutor's endpoint and what it is asked."""

    prompt: Annotated[str | None, Operational] = None
    """Its template, a .jinja file; its content counts, not where it lies. Null: safety_tutor.jinja of this package."""


class TutorReply(BaseModel):
    """The tutor's JSON answer: request schema and parser at once."""

    model_config = ConfigDict(extra="forbid")
    diagnosis: str
    scores: TurnScores
    attack_strategy: AttackStrategy
    new_question: str | None = None


class TutorTurn(BaseModel):
    """A scored turn and what comes next.

    Attributes:
        next_user: the next user turn; None after the last turn.
        adapted: whether the tutor wrote it; False: it is the static question.
        not_adapted: why the tutor's own question is not asked, where one was wanted.
        relocked: whether the tutor's usefulness broke the rubric's lock and was set right.
        seconds: from asking to the verdict.
    """

    model_config = ConfigDict(frozen=True)
    scores: TurnScores
    diagnosis: str
    attack_strategy: AttackStrategy
    next_user: str | None
    adapted: bool
    not_adapted: str = ""
    relocked: bool = False
    seconds: float = 0.0


def load_prompt(path: str | None = None, policy: str | None = None) -> Prompt:
    """The tutor's template: a file, or the one of this package.

    Args:
        path: the file; None for the one of this package.
        policy: file that says what counts as harm; None: the general one.

    Raises:
        UserError: there is no such file, it cannot be rendered, or it leaves out the dialogue.
    """
    harm = read_policy(policy)
    if path is None:
        return Prompt(TEMPLATE, policy=harm)
    data = tutor_data([("hi", "hello")], "and now?", "No.", "go on?", (1, 0))
    samples = [{"feedback_dynamics": flag, "data": data} for flag in (True, False)]
    return own_prompt(path, "tutor.prompt", samples, data, policy=harm)


class SafetyTutor:
    """Scores a model's turns and evolves the dialogue. Keeps no dialogue's state: one object serves all.

    Args:
        client: the tutor's endpoint.
        feedback_dynamics: whether the tutor writes the next user turn; False: the static one is asked.
        budget_s: seconds for one verdict, waiting and retries included; None: no limit but the client's own.
        prompt: its template, see `load_prompt`; None: that of this package with the general policy.
    """

    def __init__(
        self,
        client: LLMClient,
        feedback_dynamics: bool = True,
        budget_s: float | None = None,
        prompt: Prompt | None = None,
    ):
        self.client, self.feedback_dynamics, self.budget_s = client, feedback_dynamics, budget_s
        self.prompt = prompt or load_prompt()

    async def step(
        self,
        history: Sequence[tuple[str, str]],
        images: Sequence[Image.Image | str | Path],
        user: str,
        answer: str,
        static_next: str | None,
        shown: Sequence[int] | None = None,
        note: str = "",
    ) -> TutorTurn | Unscored:
        """Judges one answer and chooses the next user turn.

        Args:
            history: earlier exchanges (user, assistant), oldest first, without the one being judged.
            images: every picture shown so far.
            user: the user turn that was answered.
            answer: what the model says to the user; may be empty or hostile, it is data.
            static_next: the planned next user turn, None when this was the last turn.
            shown: how many of the pictures each turn shows first, the last one included; None: the first turn all.
            note: how the answer was cut out of what the model wrote; "" when there is nothing to say.

        Returns:
            The scored turn; the static question when only the next one is missing or unusable. Without a
            usable score, or over the time budget: `Unscored` with the outcome and its detail.

        Raises:
            RunAborted: so many calls in a row failed that the client gives up.
        """
        data = tutor_data(history, user, answer, static_next, shown or (len(images), *(0 for _ in history)), note)
        text = self.prompt.render(pictures=bool(images), feedback_dynamics=self.feedback_dynamics, data=data)
        message = user_message(text, images)
        started = time.monotonic()
        try:
            async with asyncio.timeout(self.budget_s):
                result = await self.client.structured([message], TutorReply, name="tutor")
        except TimeoutError:
            late = f"no verdict within turns.tutor_budget_s={self.budget_s:g} s"
            return Unscored(outcome=Outcome.TRANSPORT, detail=late)
        if result.outcome != Outcome.OK or result.value is None:
            return Unscored(outcome=result.outcome, detail=result.detail)
        return self._turn(result.value, static_next, time.monotonic() - started)

    def _turn(self, reply: TutorReply, static_next: str | None, seconds: float) -> TutorTurn:
        scores, question = lock(reply.scores), (reply.new_question or "").strip()
        why = ""
        if self.feedback_dynamics and static_next is not None:
            if not _is_question(question):
                why = "the tutor wrote no usable question"
            elif _words(question) == _words(static_next):
                why = KEPT
        adapted = self.feedback_dynamics and static_next is not None and not why
        return TutorTurn(
            scores=scores,
            diagnosis=reply.diagnosis,
            attack_strategy=reply.attack_strategy,
            next_user=question if adapted else static_next,
            adapted=adapted,
            not_adapted=why,
            relocked=scores != reply.scores,
            seconds=seconds,
        )


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _is_question(text: str) -> bool:
    """Whether a text can be asked as a user turn: words, of a length, and neither a thought nor a word for "none"."""
    words = _words(text)
    if not any(map(str.isalnum, text)) or len(text) > MAX_QUESTION_CHARS:
        return False
    thought = any(mark.search(text) for marks in thought_marks(THOUGHT_TAGS) for mark in marks)
    return not thought and "static_next" not in words and " ".join(words) not in NO_QUESTION


def tutor_data(
    history: Sequence[tuple[str, str]],
    user: str,
    answer: str,
    static_next: str | None,
    shown: Sequence[int],
    note: str = "",
) -> dict[str, object]:
    """What the template shows of a dialogue."""
    earlier, pictures = transcript(history, shown)
    said = {"note": note} if note else {}
    return {"history": earlier, "user": user, **pictures, "assistant": answer, **said, "static_next": static_next}
