"""Inference: plays benchmark dialogues against one model and keeps what it answered.

Input: `BenchmarkDialogue`s, an `LLMClient` for the model under test. Output: `<folder>/answers.jsonl`, `Dialogue` rows
with the assistant turns filled in and `meta.end`: "complete", or the outcome of the turn that ended the dialogue
(`filtered`, `context_full`, `transport`, ...). Nothing but the model's own words enters the history; turns after the
end stay unanswered.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.benchmarks import BenchmarkDialogue, picture_paths
from evaluation.multi_turn.settle import lost, process_twice, record_left
from safer_steer.chat import user_message
from safer_steer.dialogue import Dialogue, Turn, stable_hash
from safer_steer.errors import UserError
from safer_steer.images import load_image
from safer_steer.llm import CONTEXT_FULL, LLMClient, Reply
from safer_steer.rows import Counts, Reject
from safer_steer.store import JsonlStore, read_jsonl
from safer_steer.verdict import Outcome

ANSWERS, REJECTS = "answers.jsonl", "rejects.jsonl"
COMPLETE = "complete"


@dataclass(frozen=True)
class Player:
    """Plays dialogues against one model: turns in order, pictures in every history, one seed for each turn.

    Attributes:
        client: the model under test.
        seed: root of the sampling seeds.
        system: system prompt, None for the chat template's own.
        folder: the run folder; picture paths of the rows are relative to it.
    """

    client: LLMClient
    seed: int
    system: str | None
    folder: Path

    async def play(self, task: BenchmarkDialogue) -> Dialogue | Reject:
        """Plays one dialogue to its end, or to the first turn without an answer.

        Raises:
            ImageError: a picture is missing or unreadable; the dialogue is rejected, not played without it.
        """
        dialogue = task.dialogue
        pictures = picture_paths(dialogue, task.folder)
        for path in {path for paths in pictures for path in paths}:
            load_image(path)
        messages = [{"role": "system", "content": self.system}] if self.system else []
        answered: list[Turn] = []
        end, detail = COMPLETE, ""
        for index, turn in enumerate(dialogue.turns):
            messages.append(user_message(turn.user, pictures[index]))
            reply = await self.client.chat(
                messages, seed=turn_seed(self.seed, dialogue.id, index + 1), allow_empty=True
            )
            text = answer_text(reply)
            if text is None:
                end, detail = end_of(reply), reply.detail
                break
            messages.append({"role": "assistant", "content": text})
            answered.append(
                turn.model_copy(
                    update={"assistant": text, "scores": None, "meta": turn.meta | {"outcome": str(reply.outcome)}}
                )
            )
        row = self._row(task, answered, end, detail)
        return lost("transport", detail, end, row) if end == Outcome.TRANSPORT else row

    def _row(self, task: BenchmarkDialogue, answered: list[Turn], end: str, detail: str) -> Dialogue:
        dialogue = task.dialogue
        missing = [
            turn.model_copy(update={"assistant": None, "scores": None}) for turn in dialogue.turns[len(answered) :]
        ]
        meta: dict[str, Any] = dialogue.meta | {"task": task.task_id, "benchmark": task.benchmark, "end": end}
        meta |= {"end_detail": detail} if detail else {}
        images = [os.path.relpath(task.folder / image, self.folder) for image in dialogue.images]
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
    player: Player, tasks: list[BenchmarkDialogue], *, label: str, concurrency: int, max_transport_rate: float
) -> Counts:
    """Plays all dialogues that have no row yet; many at once, each in order.

    Raises:
        RunAborted: too many dialogues were lost to transport failures.
        UserError: not one turn was answered.
    """
    with JsonlStore(player.folder / ANSWERS) as kept, JsonlStore(player.folder / REJECTS) as rejects:
        await process_twice(
            tasks,
            player.play,
            kept=kept,
            rejects=rejects,
            label=label,
            concurrency=concurrency,
            max_transport_rate=max_transport_rate,
        )
        counts = record_left(tasks, kept, rejects, Dialogue)
    ends = count_ends(player.folder / ANSWERS)
    if not any(row.turns[0].assistant is not None for row in read_jsonl(player.folder / ANSWERS, Dialogue)):
        problems = ", ".join(f"{count} {name}" for name, count in (ends | counts.reasons).items())
        raise UserError(
            f"{label}: not one of {counts.tasks} dialogues got an answer ({problems}); see {player.folder / REJECTS}"
        )
    return counts


def count_ends(path: Path) -> dict[str, int]:
    """How many dialogues ended in which way, "complete" first."""
    ends = [row["meta"]["end"] for row in read_jsonl(path)]
    return {name: ends.count(name) for name in sorted(set(ends), key=lambda name: (name != COMPLETE, name))}
