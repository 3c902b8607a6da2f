"""The model calls of a task: prompt, data, pictures -> a validated answer, or the end of the task with its reason."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

from safer_steer.chat import user_message
from safer_steer.dialogue import stable_hash
from safer_steer.llm import LLMClient, Reply
from safer_steer.llm.replies import CONTEXT_FULL, quoted
from safer_steer.prompts import Prompt
from safer_steer.rows import Reject
from safer_steer.verdict import Outcome

RIGHT_WITHOUT = ("refusal", "request_risk")  # prompts that are right as they are where no picture goes with them
Schema = TypeVar("Schema", bound=BaseModel)
Result = TypeVar("Result")


@dataclass(frozen=True)
class Problem:
    """What is wrong with an answer's content: `reason` is counted, `detail` goes to the model and is stored."""

    reason: str
    detail: str


class Answer(BaseModel):
    """A structured answer: every field is required and no other is allowed, as strict JSON schemas want it."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Rejected(Exception):
    """Ends a task with a `Reject`; `row` is what to store with the reason."""

    def __init__(self, reason: str, detail: str = "", outcome: str | None = None, row: dict[str, Any] | None = None):
        super().__init__(f"{reason}: {detail}")
        self.reject = Reject(reason, detail, outcome, row or {})

    def with_row(self, extra: dict[str, Any]) -> "Rejected":
        """The same end with more to store."""
        reject = self.reject
        return Rejected(reject.reason, reject.detail, reject.outcome, reject.row | extra)


def why_unusable(reply: Reply, max_tokens: int | None) -> str:
    """Why a reply is no answer, in words: what the endpoint said, the limit that cut it, how its text begins.

    Args:
        reply: any but a usable one.
        max_tokens: the limit that was asked for, None for the endpoint's own.
    """
    said = [reply.detail] if reply.detail else []
    if reply.outcome == Outcome.TRUNCATED and not reply.detail.startswith(CONTEXT_FULL):
        said.append(f"cut at max_tokens={max_tokens}" if max_tokens else "cut at the endpoint's own limit of tokens")
    if reply.text is not None:
        said.append(f"it begins {quoted(reply.text)}" if reply.text.strip() else "it has no text")
    return "; ".join(said) or "the endpoint gave no reason"


@dataclass(frozen=True)
class Caller:
    """What tasks call models with: clients by role, prompts by name, the folder of the pictures, the run's seed."""

    clients: Mapping[str, LLMClient]
    prompts: Mapping[str, Prompt]
    folder: Path
    seed: int
    _running: dict[Any, asyncio.Future] = field(default_factory=dict)

    def sampling_seed(self, *parts: Any) -> int:
        """A seed in [0, 2**31) that depends on nothing but the run's seed and `parts`."""
        return int(stable_hash(self.seed, *parts), 16) % 2**31

    def paths(self, images: Sequence[str]) -> list[Path]:
        """Stored pictures as files."""
        return [self.folder / image for image in images]

    async def ask(
        self,
        role: str,
        name: str,
        schema: type[Schema],
        *,
        data: dict[str, Any],
        images: Sequence[str],
        key: Sequence[Any],
        check: Callable[[Schema], Sequence[Problem]] = lambda answer: (),
    ) -> Schema:
        """Asks a role for one `schema`; an answer of the right form with wrong content is asked for once more.

        Args:
            role: whose client to use.
            name: of the prompt, of the JSON schema, and the first part of a reject's reason.
            schema: what the answer must be.
            data: what the prompt's data block holds.
            images: stored pictures to show.
            key: what the sampling seed depends on, next to `name`.
            check: what is wrong with an answer; the re-ask tells the model.

        Raises:
            Rejected: no usable answer; the reason is "NAME: OUTCOME", or "NAME: " and what is wrong with the content,
                and then the last answer is what to store.
        """
        pictures = bool(images) or name in RIGHT_WITHOUT
        messages = [user_message(self.prompts[name].render(pictures=pictures, data=data), self.paths(images))]
        seed, found = self.sampling_seed(name, *key), {}
        for again in (True, False):
            answer = await self.clients[role].structured(messages, schema, name=name, seed=seed)
            if answer.value is None:
                raise Rejected(f"{name}: {answer.outcome}", answer.detail, answer.outcome, found)
            problems = check(answer.value)
            if not problems:
                return answer.value
            detail = "; ".join(problem.detail for problem in problems)
            found = {"answer": answer.value.model_dump(mode="json")}
            if again:
                text = f"That answer cannot be used: {detail}. Answer again with one JSON object that corrects this."
                said = {"role": "assistant", "content": answer.value.model_dump_json()}
                messages = [messages[0], said, user_message(text)]
        said = quoted(json.dumps(found["answer"], ensure_ascii=False))
        raise Rejected(f"{name}: {problems[0].reason}", f"{detail}; the answer begins {said}", row=found)

    async def once(self, key: Any, start: Callable[[], Awaitable[Result]]) -> Result:
        """Runs `start` once for all tasks that need it at the same time; later ones find its answer in the cache."""
        if key not in self._running:
            self._running[key] = asyncio.ensure_future(start())
            self._running[key].add_done_callback(lambda _: self._running.pop(key, None))
        return await asyncio.shield(self._running[key])
