"""Inference: plays benchmark dialogues against one model and keeps what it answered.

Input: benchmark files, the model under test and, for adaptive user turns, a tutor. Output: `<folder>/answers.jsonl`,
`Dialogue` rows with the assistant turns filled in and `meta.end`: "complete", or the outcome of the turn that ended the
dialogue (`filtered`, `context_full`, `transport`, ...), with `meta.model_said`, all that the model wrote at that turn,
which is no answer and is never judged. Nothing but the model's own words enters the history; turns after the end stay
unanswered. A killed run continues in mid-dialogue: answers of dialogues that are not at their end
are in the stage's cache, which is deleted when all are complete.
"""

import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from evaluation.benchmarks import BenchmarkDialogue, benchmark_files, most_pictures, read_benchmarks
from evaluation.config import EvaluationConfig, ModelConfig, model_under_test, role_of
from evaluation.multi_turn.adaptive import adapted_turn, count_user_turns
from evaluation.multi_turn.thoughts import thought_opening
from evaluation.needs import needs
from evaluation.pictures import ShownPictures, served_size
from safer_steer.answer_format import AnswerFormat
from safer_steer.answer_tags import THOUGHT_TAGS
from safer_steer.aside import ASIDE, RETRIED, any_row
from safer_steer.chat import user_message
from safer_steer.dialogue import Dialogue, Turn, stable_hash
from safer_steer.engine import CACHE, Clients, Work
from safer_steer.errors import UserError
from safer_steer.llm import CONTEXT_FULL, EndpointConfig, LLMClient, Reply
from safer_steer.picture_digest import dialogue_pictures
from safer_steer.picture_files import picture_file
from safer_steer.picture_size import PictureSize
from safer_steer.row_files import BadRow
from safer_steer.rows import Reject, lost, record_left
from safer_steer.servers import NOT_ANSWERS, ServiceConfig
from safer_steer.stage import Result, Stage
from safer_steer.store import JsonlStore, read_jsonl, rows_if_there
from safer_steer.verdict import Outcome, Unscored
from safer_steer_verl.interactions.safety_tutor import SafetyTutor, load_prompt

ANSWERS, REJECTS = "answers.jsonl", "rejects.jsonl"
COMPLETE = "complete"
ASKED_AGAIN = "asked_again"  # in a row's meta: how often the turn that it ended at was asked again
OF_A_RUN = (  # in the meta of a turn or a row: a run's own, gone when its answers are played as a benchmark
    *("adapted", "not_adapted", "attack_strategy", "format_problem", "reasoning", "outcome"),
    *("model_said", "end_detail", ASKED_AGAIN),
)
SAMPLE_OF = "sample_of"  # in a row's meta: the dialogue that it is a further sample of
RECORD = "infer.json"
PICTURES = "pictures"  # of the output folder: the benchmarks' pictures as the models see them


def inference(config: EvaluationConfig, name: str, following: Callable[[], Stage] | None = None) -> Stage:
    """Plays all dialogues that one model has not played yet, on a server that lives only for that.

    Args:
        config: the evaluation.
        name: the model.
        following: gives the stage whose server may start ahead.

    Raises:
        UserError: there is no benchmark file, or the checkpoint was trained with pictures of another size.
    """
    model, folder, role = model_under_test(config, name), Path(config.output, name), role_of("evaluated", name)
    files, bad = benchmark_files(config.benchmarks), list[BadRow]()
    tasks = read_benchmarks(config.benchmarks, config.limit, bad, ids=config.ids, repeats=config.repeats)
    size, limit = picture_size(config, name)
    answers = config.format_of(name)
    pictures = ShownPictures(size, Path(config.output, PICTURES))
    tutor = config.tutor if config.mode == "adaptive" else None
    prompt = load_prompt(tutor.prompt, config.policy) if tutor else None
    endpoint, services = _served(config, model, name, most_pictures(task.dialogue for task in tasks), limit)

    def before(_: JsonlStore) -> dict[str, int]:
        pictures.prepare(tasks, f"infer {name}")  # a bad picture costs no start of a server
        return {}

    def work(clients: Clients) -> Work:
        writer = SafetyTutor(clients["tutor"], prompt=prompt) if prompt else None
        sampling, again = config.sampling_of(name), asked_again(folder)
        return Player(
            clients[role], sampling.seed, answers, folder, pictures, writer, sampling.reasoning_in_history, again
        ).play

    def after(result: Result) -> dict[str, int]:
        record_left(result.kept, result.rejects, Dialogue)
        counts = result.counts
        ends = count_ends(result.kept.path)
        if not any(row.turns[0].assistant is not None for row in result.kept.rows(Dialogue)):
            problems = ", ".join(f"{count} {end}" for end, count in (ends | counts.reasons).items())
            raise UserError(
                f"infer {name}: not one of {counts.tasks} dialogues got an answer ({problems}); "
                f"see {result.rejects.path}"
            )
        aside = folder / ASIDE / ANSWERS
        if ends.keys() <= {COMPLETE} and not any_row([aside], _unanswered):  # of these it has the turns, for `retry`
            (folder / CACHE).unlink(missing_ok=True)
        numbers = {key: number for key, number in counts.as_dict().items() if key != "kept"}
        written = count_user_turns(result.kept.path) if tutor else {}
        return numbers | ends | {f"(user turns, {key})": count for key, count in written.items()}

    return Stage(
        name=f"infer {name}, adaptive" if tutor else f"infer {name}",
        folder=folder,
        record=RECORD,
        config=_facts(config, name, model),
        roles={role: endpoint} | ({"tutor": tutor.from_environment("tutor")} if tutor else {}),
        services=services,
        inputs={f"benchmark {key}": path for key, path in files.items()},
        contents=lambda: {f"pictures of {key}": dialogue_pictures(path) for key, path in files.items()},
        prompts={"tutor": prompt.hash} if prompt else {},
        tasks=lambda: tasks,
        bad=bad,
        work=work,
        before=before,
        after=after,
        kept=ANSWERS,
        rejects=REJECTS,
        grows=True,
        again=_unanswered if config.retry else None,
        ordered=True,
        concurrency=config.concurrency,
        max_transport_rate=config.max_transport_rate,
        needs=needs(config),
        following=following if config.serving.start_ahead else None,
    )


@dataclass(frozen=True)
class Player:
    """Plays dialogues against one model: turns in order, pictures in every history, one seed for each turn.

    Attributes:
        client: the model under test.
        seed: root of the sampling seeds.
        answers: system prompt and tags; of an answer only what is said to the user is judged, thoughts stay in the row.
        folder: the run folder; picture paths of the rows are relative to it.
        pictures: the pictures at the size that the model sees.
        tutor: writes the user turns after the first one; None for the benchmark's own turns.
        reasoning_in_history: whether the model is given the thoughts of its earlier turns; None: where `answers` has
            tags, as in training.
        again: (row, turn) -> how often that turn was asked again, of those that got no answer.
    """

    client: LLMClient
    seed: int
    answers: AnswerFormat
    folder: Path
    pictures: ShownPictures
    tutor: SafetyTutor | None = None
    reasoning_in_history: bool | None = None
    again: Mapping[tuple[str, int], int] = field(default_factory=dict)

    async def play(self, task: BenchmarkDialogue) -> Dialogue | Reject:
        """Plays one dialogue to its end, or to the first turn without an answer.

        Raises:
            ImageError: a picture is missing or unreadable; the dialogue is rejected, not played without it.
        """
        task = replace(task, dialogue=unplayed(task.dialogue))
        dialogue, pictures = task.dialogue, self.pictures.of(task)
        system = self.answers.system
        messages = [{"role": "system", "content": system}] if system else []
        done: list[Turn] = []
        for index, turn in enumerate(dialogue.turns):
            if self.tutor and done:
                found = await adapted_turn(self.tutor, done, pictures[:index], turn)
                if isinstance(found, Unscored):
                    why = f"tutor {found.reason}"
                    return lost("transport", why, "transport", self._row(task, done, "transport", why))
                turn = found
            messages.append(user_message(turn.user, pictures[index]))
            seed = turn_seed(self.seed, task.task_id, index + 1, self.again.get((task.task_id, index + 1), 0))
            reply = await self.client.chat(messages, seed=seed, allow_empty=True)
            text = answer_text(reply)
            if text is None:
                end = end_of(reply)
                row = self._row(task, done, end, reply.detail, reply.said)
                return lost("transport", reply.detail, end, row) if end == Outcome.TRANSPORT else row
            said = self.answers.split(text)
            if text.strip() and not said.answer.strip():
                end = str(Outcome.TRUNCATED if reply.outcome == Outcome.TRUNCATED else Outcome.UNPARSED)
                whole = "\n".join(filter(None, (reply.reasoning, text)))
                return self._row(task, done, end, "only reasoning, no answer", whole)
            reasoning = "\n".join(filter(None, (reply.reasoning, said.reasoning)))
            messages.append({"role": "assistant", "content": self._in_history(text, said.answer, reasoning)})
            meta = turn.meta | {"outcome": str(reply.outcome)} | ({"reasoning": reasoning} if reasoning else {})
            meta |= {"format_problem": said.problem} if said.problem else {}
            done.append(turn.model_copy(update={"assistant": said.answer, "meta": meta}))
        return self._row(task, done, COMPLETE, "")

    def _in_history(self, text: str, answer: str, reasoning: str) -> str:
        """An earlier answer as the model sees it again: what it wrote, or what it said to the user."""
        tagged = bool(self.answers.tags)
        if not (tagged if self.reasoning_in_history is None else self.reasoning_in_history):
            return answer
        if tagged or not reasoning:
            return text
        return f"<{THOUGHT_TAGS[0]}>{reasoning}</{THOUGHT_TAGS[0]}>\n\n{answer}"

    def _row(
        self, task: BenchmarkDialogue, answered: list[Turn], end: str, detail: str, said: str | None = None
    ) -> Dialogue:
        dialogue = task.dialogue
        missing = dialogue.turns[len(answered) :]
        meta: dict[str, Any] = dialogue.meta | {"task": task.task_id, "benchmark": task.benchmark, "end": end}
        meta |= {"end_detail": detail} if detail else {}
        meta |= {"model_said": said} if said else {}
        meta |= {SAMPLE_OF: dialogue.id if task.repeat > 1 else None}
        again = self.again.get((task.task_id, len(answered) + 1))
        meta |= {ASKED_AGAIN: again} if again else {}
        shown = [self.pictures.file(picture_file(task.folder, image)) for image in dialogue.images]
        images = [os.path.relpath(path, self.folder) for path in shown]
        update = {"id": task.task_id, "images": images, "turns": answered + missing, "meta": meta}
        return dialogue.model_copy(update=update)


def unplayed(dialogue: Dialogue) -> Dialogue:
    """A benchmark's dialogue without answers, scores and what a run that gave them said of itself."""
    turns = [
        turn.model_copy(update={"assistant": None, "scores": None, "meta": _without_run(turn.meta)})
        for turn in dialogue.turns
    ]
    return dialogue.model_copy(update={"turns": turns, "meta": _without_run(dialogue.meta)})


def _without_run(meta: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in meta.items() if name not in OF_A_RUN}


def answer_text(reply: Reply) -> str | None:
    """The words that a reply adds to the dialogue, None when it adds none.

    An answer cut at `max_tokens` is what a user would see, so the dialogue continues with it; so is a model's own
    refusal message.
    """
    if reply.outcome == Outcome.REFUSED:
        return reply.said
    return reply.text if reply.outcome in (Outcome.OK, Outcome.TRUNCATED) else None


def end_of(reply: Reply) -> str:
    """Why a dialogue ended: the outcome of the turn without an answer; `context_full` when the history no longer
    fits.
    """
    return CONTEXT_FULL if reply.detail.startswith(CONTEXT_FULL) else str(reply.outcome)


def turn_seed(seed: int, row: str, turn: int, again: int = 0) -> int:
    """The sampling seed of one turn (1-based), in [0, 2**31): equal in every process, different for every turn and
    every time that it is asked again.
    """
    return int(stable_hash(seed, row, turn, *([again] if again else [])), 16) % 2**31


def sample_of(row: Dialogue) -> tuple[str, int]:
    """Which dialogue a row is a sample of, and the sample's number from 1."""
    dialogue = row.meta.get(SAMPLE_OF)
    return (dialogue, int(row.id.rpartition("#")[2])) if dialogue else (row.id, 1)


def asked_again(folder: Path) -> dict[tuple[str, int], int]:
    """(row, turn) -> how often the turn was asked again because the model gave no answer; 1 for the first time.

    A call that never reached it is simply made once more. Rows say it themselves, as a kill may leave one there twice.
    """
    rows = (row for row in rows_if_there(folder / RETRIED / ANSWERS, Dialogue) if row.meta["end"] != Outcome.TRANSPORT)
    ended = ((row, 1 + sum(turn.assistant is not None for turn in row.turns)) for row in rows)
    return {(row.id, turn): row.meta.get(ASKED_AGAIN, 0) + 1 for row, turn in ended}


def _unanswered(row: dict[str, Any]) -> bool:
    """Whether a stored row, kept or rejected, is of a dialogue that ended at a turn without an answer."""
    found = row.get("row", row)
    return "meta" in found and found["meta"]["end"] != COMPLETE


def count_ends(path: Path) -> dict[str, int]:
    """How many dialogues ended in which way, "complete" first."""
    ends = Counter(row["meta"]["end"] for row in read_jsonl(path))
    return {name: ends[name] for name in sorted(ends, key=lambda name: (name != COMPLETE, name))}


def picture_size(config: EvaluationConfig, name: str) -> tuple[PictureSize, int | None]:
    """The sizes at which a model sees pictures, and the limit to give its server, where this run starts one.

    Raises:
        UserError: its checkpoint was trained with another limit, and the config does not say so for this model.
    """
    model, most = config.models[name], config.max_pixels_of(name)
    size, limit = PictureSize(max_pixels=most), None
    if model.checkpoint is not None:
        size, limit = served_size(model.checkpoint, most, agree=model.max_pixels is None)
    return replace(size, min_pixels=max(size.min_pixels, config.min_pixels or 0)), limit


def _facts(config: EvaluationConfig, name: str, model: ModelConfig) -> dict[str, Any]:
    """What a model's answers depend on, next to its endpoint and the benchmark files."""
    facts: dict[str, Any] = {"max_pixels": config.max_pixels_of(name)}
    facts |= {"answer_format": config.format_of(name), "sampling": config.sampling_of(name)}
    facts |= {"min_pixels": config.min_pixels} if config.min_pixels else {}
    if model.endpoint:
        return facts | {"model": model.endpoint.model}
    arguments = [item for item in config.serving.arguments if item not in NOT_ANSWERS]
    return facts | {
        "model": model.checkpoint,
        "sampling": config.sampling_of(name).for_checkpoint(),
        "max_model_len": config.serving.max_model_len,
        "arguments": arguments,
    }


def _served(
    config: EvaluationConfig, model: ModelConfig, name: str, pictures: int, max_pixels: int | None
) -> tuple[EndpointConfig, Mapping[str, ServiceConfig]]:
    """A model's endpoint with its sampling, and the services that may be started."""
    settings = config.sampling_of(name)
    settings = settings if model.endpoint else settings.for_checkpoint()
    sampling = settings.model_dump(include={"temperature", "top_p", "max_tokens"})
    if model.endpoint:
        extra = {"extra_body": model.endpoint.extra_body | settings.extra_body()}
        return model.endpoint.model_copy(update=sampling | extra), config.services
    assert model.checkpoint
    endpoint = EndpointConfig(
        model=name,
        base_url=f"service:{name}",
        concurrency=config.concurrency,
        extra_body=settings.extra_body(),
        thought_opening=thought_opening(model.checkpoint),
        **sampling,
    )
    return endpoint, config.services | {name: config.serving.service(name, model.checkpoint, pictures, max_pixels)}
