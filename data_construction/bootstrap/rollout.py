"""The red-blue loop (Eq. 12-14) for one dialogue: red rewrites each template turn, blue answers, the evaluator scores.

A failed call ends the dialogue there with its outcome, and so does a rewrite that is no user's turn; nothing invented
enters the history. Each request depends on the
template and the turns so far only, so a dialogue begun again finds its finished turns in the cache and continues where
it stopped. The keep rule is not applied here: the assembly does, with thresholds that may still change.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from data_construction.calls import Answer, Caller, Problem, Rejected, why_unusable
from data_construction.config import Quality
from data_construction.quality.turns import longest_turn, turn_problems
from data_construction.quality.writer import Writer
from data_construction.step import RowTask
from safer_steer.answer_format import AnswerFormat
from safer_steer.answer_tags import split_parts
from safer_steer.chat import dialogue_messages
from safer_steer.data_block import transcript
from safer_steer.dialogue import Dialogue, Turn, dialogue_id
from safer_steer.llm.replies import quoted
from safer_steer.rows import Reject
from safer_steer.rubric import TurnScores, lock
from safer_steer.verdict import Outcome

CARRIED_META = ("seed", "split", "technique", "generated_attack", "injector", "seed_question")


class Rewrite(Answer):
    """The user turn u_t that red makes of the template turn."""

    user: str


class ScoredTurn(Answer):
    """The evaluator's scores of one assistant turn."""

    rationale: str
    scores: TurnScores


class LockedTurn(NamedTuple):
    """A turn's scores as the rubric's lock leaves them; `relocked` when the evaluator's usefulness broke it."""

    rationale: str
    scores: TurnScores
    relocked: bool


async def score_turn(
    caller: Caller,
    history: Sequence[tuple[str, str]],
    user: str,
    answer: str,
    shown: Sequence[Sequence[str]],
    key: Sequence[Any],
) -> LockedTurn:
    """The evaluator's scores of one answer (Eq. 14), with usefulness locked as the tutor's is: it is one reward model.

    Args:
        caller: asks the evaluator.
        history: the (user, assistant) exchanges before it.
        user: the turn it answers.
        answer: what of it is said to the user, as in the history.
        shown: the stored pictures that each turn shows first, the last one included.
        key: what the sampling seed depends on.

    Raises:
        Rejected: there are none.
    """
    earlier, pictures = transcript(history, [len(paths) for paths in shown])
    data = {"history": earlier, "user": user, **pictures, "assistant": answer}
    seen = [path for paths in shown for path in paths]
    said = await caller.ask("evaluator", "turn_scores", ScoredTurn, data=data, images=seen, key=key)
    scores = lock(said.scores)
    return LockedTurn(said.rationale, scores, relocked=scores != said.scores)


class RedBlueLoop:
    """Bootstraps dialogues, any number at once."""

    def __init__(self, caller: Caller, answer_format: AnswerFormat, rules: Quality, guidelines: str):
        self._caller, self._red, self._tags = caller, Writer(caller, rules, "red"), answer_format.tags
        self._system = guidelines.strip() + answer_format.instruction()
        self._split = answer_format.split

    async def __call__(self, task: RowTask) -> Dialogue | Reject:
        """The scored dialogue, or why it ended, with its turns so far."""
        template, turns = task.load(), []
        try:
            for index in range(len(template.turns)):
                turns.append(await self._turn(template, task.task_id, turns, index))
        except Rejected as stop:
            done = {"dialogue": template.id, "turns": [turn.model_dump(mode="json") for turn in turns]}
            reject = stop.with_row(done).reject
            detail = f"turn {len(turns) + 1} of {len(template.turns)}: {reject.detail}"
            return Reject(reject.reason, detail, reject.outcome, reject.row)
        meta = {name: template.meta[name] for name in CARRIED_META if name in template.meta}
        meta |= {"task": task.task_id, "template": template.id}
        meta |= {"relocked": sum(turn.meta["relocked"] for turn in turns)}
        content = [text for turn in turns for text in (turn.user, turn.assistant)]
        new_id = dialogue_id(template.source, template.meta["seed"], template.kind, template.strategy, content)
        return template.model_copy(update={"id": new_id, "turns": turns, "meta": meta})

    async def _turn(self, dialogue: Dialogue, task_id: str, turns: list[Turn], index: int) -> Turn:
        template = dialogue.turns[index]
        shown = [dialogue.images_at(number) for number in range(index + 1)]
        said = [(turn.user, self._split(turn.assistant or "").answer) for turn in turns]
        pairs, _ = transcript(said, [len(images) for images in shown])
        seen, key = [image for images in shown for image in images], (task_id, index)

        data = {"history": pairs, "template": template.user, "kind": dialogue.kind}
        user = await self._rewrite(template.user, data, seen, key)
        answer = await self._answer(user, turns, shown, key)

        try:
            scored = await score_turn(self._caller, said, user, self._split(answer).answer, shown, key)
        except Rejected as stop:
            raise stop.with_row({"unscored": {"user": user, "assistant": answer}}) from stop
        meta = {"rationale": scored.rationale, "relocked": scored.relocked} | {
            k: v for k, v in template.meta.items() if k in ("goal", "tactic", "risk")
        }
        return Turn(
            user=user,
            template=template.user,
            assistant=answer,
            scores=scored.scores,
            images=template.images,
            meta=meta,
        )

    async def _rewrite(self, template: str, data: dict[str, Any], images: list[str], key: tuple) -> str:
        """The user turn that red makes of the template; it may break a rule of Stage I's turns that the template does.

        Which language it is in, and whether it points at the picture, one turn alone does not tell.
        """
        rules = self._red.rules.model_copy(update={"picture_words": [], "languages": []})
        excused = {problem.reason for problem in turn_problems([template], 1, rules, template)}

        def check(rewrite: Rewrite) -> list[Problem]:
            found = turn_problems([rewrite.user], 1, rules, template)
            return [problem for problem in found if problem.reason not in excused]

        rewrite = await self._red.write(
            "rewrite",
            Rewrite,
            data=data | {"max_words": longest_turn(rules, template)},
            images=images,
            key=key,
            check=check,
            texts=lambda rewrite: [rewrite.user],
        )
        return rewrite.user.strip()

    async def _answer(self, user: str, turns: list[Turn], shown: list[list[str]], key: tuple) -> str:
        history = [(turn.user, turn.assistant) for turn in turns]
        pictures = [self._caller.paths(images) for images in shown]
        messages = dialogue_messages([*history, (user, None)], pictures, self._system)
        reply = await self._caller.clients["blue"].chat(messages, seed=self._caller.sampling_seed("blue", *key))
        answer = (reply.text or "").strip()
        if reply.outcome != Outcome.OK:
            limit = self._caller.clients["blue"].config.max_tokens
            raise Rejected(f"blue: {reply.outcome}", why_unusable(reply, limit), reply.outcome)
        if not (said := self._split(answer).answer.strip()):
            raise Rejected("blue: unparsed", f"only thoughts, no answer: {quoted(answer)}", Outcome.UNPARSED)
        if not self._tags:
            return said  # plain answers are learnt without thoughts
        if split_parts(answer, self._tags) is None:
            tags = ", ".join(self._tags)
            raise Rejected("blue: wrong format", f"expected the tags {tags}; got {quoted(answer)}")
        return answer
