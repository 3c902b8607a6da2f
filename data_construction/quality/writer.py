"""The calls of those who write user turns: an answer that passes its checks, or the end of the task, with refusals
told apart.

A refusal is known by its outcome (`refused`, `filtered`), or by a classifier prompt to `quality.refusal_role`. The
classifier sees text only, and is asked only where a refusal can hide: when prose came in place of JSON, twice, and when
a text that should be a user's words is more or less than one question. JSON that is broken, cut or breaks a rule keeps
that as its reason. No word, "sorry" least of all, decides by itself.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel

from data_construction.calls import Answer, Caller, Problem, Rejected
from data_construction.config import Quality, Role
from safer_steer.verdict import Outcome

Schema = TypeVar("Schema", bound=BaseModel)
_ONE_QUESTION = re.compile(r"(?:[^.!…。！\n?？؟⁇⁈⁉]|[.](?=\w))*[?？؟⁇⁈⁉][?？؟⁇⁈⁉!！]*[\"'”’»)\s]*")


class RefusalVerdict(Answer):
    """Whether texts decline the task."""

    refusal: bool


@dataclass(frozen=True)
class Writer:
    """Asks the generator, or the red agent; `rules` say what its texts must be."""

    caller: Caller
    rules: Quality
    role: Role = "generator"

    async def write(
        self,
        name: str,
        schema: type[Schema],
        *,
        data: dict[str, Any],
        images: Sequence[str],
        key: Sequence[Any],
        check: Callable[[Schema], list[Problem]] = lambda answer: [],
        texts: Callable[[Schema], list[str]] = lambda answer: [],
    ) -> Schema:
        """One answer of the role.

        Args:
            name: of the prompt, of the JSON schema, and the first part of a reject's reason.
            schema: what the answer must be.
            data: what the prompt's data block holds.
            images: stored pictures to show.
            key: what the sampling seed depends on, next to `name`.
            check: what is wrong with an answer of the right form; one re-ask tells the model.
            texts: the parts of an answer that must be a user's words.

        Raises:
            Rejected: no usable answer; "NAME: refused" when the model declined.
        """
        try:
            answer = await self.caller.ask(self.role, name, schema, data=data, images=images, key=key, check=check)
        except Rejected as stop:
            said = stop.reject.detail.partition("got ")[2]
            if stop.reject.outcome == Outcome.UNPARSED and said and not set("{[") & set(said):
                await self._refuse_refusal(name, [said], key, stop.reject.row)
            raise
        doubtful = [text for text in texts(answer) if not _ONE_QUESTION.fullmatch(text.strip())]
        if doubtful:
            await self._refuse_refusal(name, doubtful, key, {"answer": answer.model_dump(mode="json")})
        return answer

    async def _refuse_refusal(self, name: str, texts: list[str], key: Sequence[Any], row: dict[str, Any]) -> None:
        """Ends the task if the texts are a refusal; a classifier without an answer changes nothing."""
        try:
            verdict = await self.caller.ask(
                self.rules.refusal_role,
                "refusal",
                RefusalVerdict,
                data={"texts": texts},
                images=[],
                key=[name, *key],
            )
        except Rejected as stop:
            if stop.reject.outcome == Outcome.TRANSPORT:
                raise
            return
        if verdict.refusal:
            raise Rejected(f"{name}: refused", texts[0][:300], Outcome.REFUSED, row)
