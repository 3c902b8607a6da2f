"""Inference: plays benchmark dialogues against one model and keeps what it answered.

Input: `BenchmarkDialogue`s, an `LLMClient` for the model under test and, for adaptive user turns, a tutor. Output:
`<folder>/answers.jsonl`, `Dialogue` rows with the assistant turns filled in and `meta.end`: "complete", or the outcome
of the turn that ended the dialogue (`filtered`, `context_full`, `transport`, ...). Nothing but the model's own words
enters the history; turns after the end stay unanswered. A killed run goes on in mid-dialogue (`turns.jsonl`).
"""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.benchmarks import BenchmarkDialogue
from evaluation.multi_turn.adaptive import AdaptiveTutor, NextTurn
from evaluation.multi_turn.settle import lost, record_left
from evaluation.multi_turn.turn_log import TurnLog
from evaluation.ordering import put_in_order
from evaluation.pictures import ShownPictures
from safer_steer.answer_tags import split_answer
from safer_steer.chat import user_message
from safer_steer.dialogue import Dialogue, Turn, stable_hash
from safer_steer.errors import UserError
from safer_steer.llm import CONTEXT_FULL, LLMClient, Reply
from safer_steer.picture_files import picture_file
from safer_steer.row_files import BadRow
from safer_steer.rows import Counts, Reject, check_transport, process_twice
from safer_steer.store import JsonlStore, read_jsonl
from safer_steer.verdict import Outcome

ANSWERS, REJECTS = "answers.jsonl", "rejects.jsonl"
COMPLETE = "complete"
SHOWN = 120  # characters of thoughts without an answer that a row tells


@dataclass(frozen=True)
class Player:
    """Plays dialogues against one model: turns in order, pictures in every history, one seed for each turn.

    Attributes:
        client: the model under test.
        seed: root of the sampling seeds.
        system: system prompt, None for the chat template's own.
        folder: the run folder; picture paths of the rows are relative to it.
        pictures: the pictures at the size that the model sees.
        tutor: writes the user turns after the first one; None for the benchmark's own turns.
        reasoning_tags: tags around thoughts, which are kept in the row and not judged.
        reasoning_in_history: whether the model is given the thoughts of its earlier turns.
    """

    client: LLMClient
    seed: int
    system: str | None
    folder: Path
    pictures: ShownPictures
    tutor: AdaptiveTutor | None = None
    reasoning_tags: tuple[str, ...] = ("think",)
    reasoning_in_history: bool = False

    async def play(self, task: BenchmarkDialogue, log: TurnLog) -> Dialogue | Reject:
        """Plays one dialogue to its end, or to the first turn without an answer; logged turns are not asked again.

        Raises:
            ImageError: a picture is missing or unreadable; the dialogue is rejected, not played without it.
        """
        dialogue, pictures = task.dialogue, self.pictures.of(task)
        messages = [{"role": "system", "content": self.system}] if self.system else []
        done: list[Turn] = []
        for index, turn in enumerate(dialogue.turns):
            if self.tutor and done:
                shown = [path for paths in pictures[:index] for path in paths]
                step = await self._next_turn(self.tutor, log, dialogue.id, done, shown, turn.user)
                if step.transport:
                    return lost("transport", step.detail, "transport", self._row(task, done, "transport", step.detail))
                adapted = {"adapted": step.adapted, "attack_strategy": step.attack_strategy}
                adapted |= {"not_adapted": step.detail} if step.detail else {}
                turn = turn.model_copy(update={"user": step.user, "template": turn.user, "meta": turn.meta | adapted})
            messages.append(user_message(turn.user, pictures[index]))
            key = f"{dialogue.id}:{index + 1}"
            if (answer := log.get(key)) is None:
                reply = await self.client.chat(
                    messages, seed=turn_seed(self.seed, dialogue.id, index + 1), allow_empty=True
                )
                text = answer_text(reply)
                if text is None:
                    end = end_of(reply)
                    row = self._row(task, done, end, reply.detail)
                    return lost("transport", reply.detail, end, row) if end == Outcome.TRANSPORT else row
                said = split_answer(text, self.reasoning_tags)
                if said.reasoning and not said.answer.strip():
                    end = str(Outcome.TRUNCATED if reply.outcome == Outcome.TRUNCATED else Outcome.UNPARSED)
                    return self._row(task, done, end, f"only reasoning, no answer: {said.reasoning[:SHOWN]}")
                reasoning = "\n".join(filter(None, (reply.reasoning, said.reasoning)))
                answer = {"assistant": said.answer, "outcome": str(reply.outcome)}
                answer |= {"reasoning": reasoning} if reasoning else {}
                log.put(key, answer)
            messages.append({"role": "assistant", "content": self._in_history(answer)})
            kept = {name: answer[name] for name in ("outcome", "reasoning") if name in answer}
            update = {"assistant": answer["assistant"], "scores": None, "meta": turn.meta | kept}
            done.append(turn.model_copy(update=update))
        return self._row(task, done, COMPLETE, "")

    def _in_history(self, answer: dict[str, Any]) -> str:
        """An earlier answer as the model sees it again."""
        said = str(answer["assistant"])
        if not (self.reasoning_in_history and answer.get("reasoning") and self.reasoning_tags):
            return said
        return f"<{self.reasoning_tags[0]}>{answer['reasoning']}</{self.reasoning_tags[0]}>\n\n{said}"

    async def _next_turn(
        self, tutor: AdaptiveTutor, log: TurnLog, dialogue: str, done: list[Turn], images: list[Path], static: str
    ) -> NextTurn:
        key = f"{dialogue}:{len(done) + 1}:user"
        if (logged := log.get(key)) is not None:
            return NextTurn.model_validate({name: value for name, value in logged.items() if name != "id"})
        *history, last = [(turn.user, turn.assistant or "") for turn in done]
        step = await tutor.next_turn(history, images, *last, static)
        if not step.transport:
            log.put(key, step.model_dump())
        return step

    def _row(self, task: BenchmarkDialogue, answered: list[Turn], end: str, detail: str) -> Dialogue:
        dialogue = task.dialogue
        missing = [
            turn.model_copy(update={"assistant": None, "scores": None}) for turn in dialogue.turns[len(answered) :]
        ]
        meta: dict[str, Any] = dialogue.meta | {"task": task.task_id, "benchmark": task.benchmark, "end": end}
        meta |= {"end_detail": detail} if detail else {}
        shown = [self.pictures.file(picture_file(task.folder, image)) for image in dialogue.images]
        images = [os.path.relpath(path, self.folder) for path in shown]
        return dialogue.model_copy(update={"images": images, "turns": answered + missing, "meta": meta})


def answer_text(reply: Reply) -> str | None:
    """The words that a reply adds to the dialogue, None when it adds none.

    An answer cut at `max_tokens` is what a user would see, so the dialogue goes on with it; so is a model's own refusal
    message.
    """
    if reply.outcome == Outcome.REFUSED:
        return reply.detail or None
    return reply.text if reply.outcome in (Outcome.OK, Outcome.TRUNCATED) else None


def end_of(reply: Reply) -> str:
    """Why a dialogue ended: the outcome of the turn without an answer; `context_full` when the history no longer
    fits.
    """
    return CONTEXT_FULL if reply.detail.startswith(CONTEXT_FULL) else str(reply.outcome)


def turn_seed(seed: int, dialogue: str, turn: int) -> int:
    """The sampling seed of one turn (1-based), in [0, 2**31): equal in every process, different for every turn."""
    return int(stable_hash(seed, dialogue, turn), 16) % 2**31


async def infer(
    player: Player,
    tasks: list[BenchmarkDialogue],
    bad: Sequence[BadRow] = (),
    *,
    label: str,
    concurrency: int,
    max_transport_rate: float,
) -> Counts:
    """Plays all dialogues that have no row yet; many at once, each in order. Bad rows of the files are rejects.

    Raises:
        RunAborted: too many dialogues were lost to transport failures; they are tried again by the next run.
        UserError: not one turn was answered.
    """
    with (
        JsonlStore(player.folder / ANSWERS) as kept,
        JsonlStore(player.folder / REJECTS) as rejects,
        TurnLog(player.folder) as log,
    ):
        for row in bad:
            rejects.append(row.as_dict() | {"outcome": None})
        await process_twice(
            lambda: tasks,
            lambda task: player.play(task, log),
            kept=kept,
            rejects=rejects,
            label=label,
            concurrency=concurrency,
            max_transport_rate=max_transport_rate,
        )
        check_transport(rejects, len(tasks), max_transport_rate, label)
        counts = record_left(tasks, kept, rejects, Dialogue).with_rejected(row.reason for row in bad)
        ends = count_ends(player.folder / ANSWERS)
        if not any(row.turns[0].assistant is not None for row in kept.rows(Dialogue)):
            problems = ", ".join(f"{count} {name}" for name, count in (ends | counts.reasons).items())
            raise UserError(
                f"{label}: not one of {counts.tasks} dialogues got an answer ({problems}); see {rejects.path}"
            )
        log.remove()
    put_in_order(player.folder / ANSWERS, [task.task_id for task in tasks])
    return counts


def count_ends(path: Path) -> dict[str, int]:
    """How many dialogues ended in which way, "complete" first."""
    ends = Counter(row["meta"]["end"] for row in read_jsonl(path))
    return {name: ends[name] for name in sorted(ends, key=lambda name: (name != COMPLETE, name))}


def count_adapted(path: Path) -> dict[str, int]:
    """Of the user turns after the first one, how many the tutor wrote and how many stayed as the benchmark has them."""
    adapted = Counter(
        turn["meta"]["adapted"] for row in read_jsonl(path) for turn in row["turns"] if "adapted" in turn["meta"]
    )
    return {"(user turns adapted)": adapted[True], "(not adapted)": adapted[False]}
