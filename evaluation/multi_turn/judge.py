"""The judge: a verdict on every assistant turn, given the whole conversation so far and its pictures (App. B).

Input: `<folder>/answers.jsonl`, an `LLMClient` for the judge. Output: `<folder>/verdicts.jsonl` (of a further judge:
`verdicts.<name>.jsonl`), one `VerdictRow` per turn that was asked for. A turn without an answer and a judge without a
usable verdict give `unscored` with the reason, never a score.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from evaluation.config import MAIN_JUDGE, EvaluationConfig, judge_role
from evaluation.multi_turn.inference import ANSWERS, SAMPLE_OF
from evaluation.multi_turn.verdicts import NO_ANSWER, JudgeIdentity, VerdictRow, verdict_id
from safer_steer.answer_tags import form_note
from safer_steer.chat import user_message
from safer_steer.config import relevant
from safer_steer.data_block import transcript
from safer_steer.dialogue import Dialogue, stable_hash
from safer_steer.engine import Work
from safer_steer.errors import RunAborted, UserError
from safer_steer.llm import EndpointConfig, LLMClient
from safer_steer.machine import Needs
from safer_steer.policy import read_policy
from safer_steer.prompts import Prompt, own_prompt
from safer_steer.rows import Reject, Task, left_rows, lost, record_left, too_many
from safer_steer.rubric import JudgeScores
from safer_steer.stage import Result, Stage
from safer_steer.store import JsonlStore, read_jsonl
from safer_steer.verdict import Outcome

VERDICTS, UNSCORED = "verdicts.jsonl", "unscored.jsonl"
RECORD = "judge.json"
PROMPTS = {"ours": Path(__file__).with_name("judge.jinja"), "printed": Path(__file__).with_name("judge_printed.jinja")}


def judging(config: EvaluationConfig, name: str, judge: str = MAIN_JUDGE) -> Stage:
    """Judges all answers of one model by one judge; answers are never asked for again."""
    folder, role = Path(config.output, name), judge_role(judge)
    endpoint = config.all_judges()[judge].from_environment(role)
    prompt = judge_prompt(config.judge_prompt, config.policy)
    played = f"{name}, adaptive" if config.mode == "adaptive" else name
    judge_ = Judge(endpoint, folder, config.max_unscored_rate, judge, prompt)

    def work(clients: Mapping[str, LLMClient]) -> Work:
        return partial(judge_.work, clients[role])

    return Stage(
        name=f"judge {played}" if judge == MAIN_JUDGE else f"judge {played} by {judge}",
        folder=folder,
        record=judge_file(RECORD, judge),
        config={},
        roles={role: endpoint},
        services=config.services,
        prompts={"judge": prompt.hash},
        tasks=lambda: judge_.tasks,
        work=work,
        before=judge_.begin,
        stored=judge_.stored,
        after=judge_.finish,
        kept=judge_file(VERDICTS, judge),
        rejects=judge_file(UNSCORED, judge),
        grows=True,
        again=_unscored if config.retry else None,
        ordered=True,
        cached=False,
        concurrency=endpoint.concurrency,
        max_transport_rate=config.max_transport_rate,
        needs=Needs("cpu", folder),
        advice=(
            " (to judge the same answers by another judge next to the old one, name it: judges.NAME={...} "
            "report.judge=NAME)"
        ),
    )


def judge_file(name: str, judge: str = MAIN_JUDGE) -> str:
    """The file of one judge: `verdicts.jsonl` for the main judge, `verdicts.<judge>.jsonl` for a further one."""
    stem, _, ending = name.rpartition(".")
    return name if judge == MAIN_JUDGE else f"{stem}.{judge}.{ending}"


def judge_prompt(choice: str = "ours", policy: str | None = None) -> Prompt:
    """The judge's template.

    Args:
        choice: `ours`, `printed`, or a user's file.
        policy: file that says what counts as harm; None: the general one.

    Raises:
        UserError: there is no such file, it cannot be rendered, or it leaves out the conversation.
    """
    harm = read_policy(policy)
    if choice in PROMPTS:
        return Prompt(PROMPTS[choice], policy=harm)
    sample = {"history": [{"user": "hi", "assistant": "hello"}], "user": "and now?", "assistant": "No."}
    return own_prompt(choice, "judge_prompt", [{"conversation": sample}], sample, policy=harm)


def judge_identity(endpoint: EndpointConfig, prompt: Prompt | None = None) -> JudgeIdentity:
    """Who judges: the version changes with anything that can change a verdict."""
    prompt = prompt or judge_prompt()
    version = stable_hash(relevant(endpoint), prompt.hash, JudgeScores.model_json_schema())
    return JudgeIdentity(model=endpoint.model, prompt_hash=prompt.hash, version=version)


@dataclass(frozen=True)
class JudgeTask:
    """One turn (1-based) to judge: an answer of `dialogue`, or the turn at which it ended without one."""

    dialogue: Dialogue
    turn: int

    @property
    def verdict_id(self) -> str:
        """`<dialogue>:<turn>`."""
        return verdict_id(self.dialogue.id, self.turn)

    @cached_property
    def task_id(self) -> str:
        """The verdict's id with a hash of what is judged: the verdict on an answer that was replaced is not taken."""
        turns = [(turn.user, turn.assistant, turn.meta.get("format_problem")) for turn in self.dialogue.turns]
        shown = [self.dialogue.images_at(index) for index in range(self.turn)]
        end = None if self.answered else self.dialogue.meta["end"]
        return f"{self.verdict_id}@{stable_hash(turns[: self.turn], shown, end)}"

    @property
    def answered(self) -> bool:
        """Whether there is an answer to judge."""
        return self.dialogue.turns[self.turn - 1].assistant is not None


def judge_tasks(path: Path) -> list[JudgeTask]:
    """A task for every answered turn, and one for the turn at which a dialogue ended early; later turns were never
    asked.
    """
    return [task for dialogue in read_jsonl(path, Dialogue) for task in _turns_of(dialogue)]


def _turns_of(dialogue: Dialogue) -> Iterator[JudgeTask]:
    for number in range(1, len(dialogue.turns) + 1):
        task = JudgeTask(dialogue, number)
        yield task
        if not task.answered:
            return


def judge_messages(task: JudgeTask, folder: Path, prompt: Prompt) -> list[dict]:
    """The judge's prompt and all pictures shown so far."""
    pictures = [folder / image for index in range(task.turn) for image in task.dialogue.images_at(index)]
    return [user_message(judge_text(task.dialogue, task.turn, prompt), pictures)]


def judge_text(dialogue: Dialogue, turn: int, prompt: Prompt) -> str:
    """The judge's prompt on one turn (1-based): protocol, and the dialogue up to there as a data block."""
    *earlier, last = dialogue.turns[:turn]
    shown = [dialogue.images_at(index) for index in range(turn)]
    history = [(turn.user, turn.assistant) for turn in earlier]
    note = form_note(last.meta.get("format_problem", ""))
    conversation = judge_data(history, last.user, last.assistant, [len(paths) for paths in shown], note)
    return prompt.render(pictures=any(shown), conversation=conversation)


def judge_data(
    history: Sequence[tuple[str, str | None]], user: str, answer: str | None, shown: Sequence[int], note: str
) -> dict[str, Any]:
    """The dialogue as the judge's template takes it.

    Args:
        history: the (user, assistant) exchanges before the turn.
        user: the request.
        answer: what is judged.
        shown: how many pictures each turn shows first, the last one included.
        note: how the answer was cut out of what the assistant wrote; "" when there is nothing to say.
    """
    earlier, pictures = transcript(history, shown)
    said = {"note": note} if note else {}
    return {"history": earlier, "user": user, **pictures, "assistant": answer, **said}


@dataclass
class Judge:
    """Judges turns; stops the run when so many verdicts are unusable that it can no longer pass `max_unscored_rate`.

    Attributes:
        answered: number of turns with an answer, of all that are to be judged; None: no stop before the end.
        failures: of these, the ones without a usable verdict that no second try will change, by outcome.
    """

    endpoint: EndpointConfig
    folder: Path
    max_unscored_rate: float
    name: str = MAIN_JUDGE
    prompt: Prompt = field(default_factory=judge_prompt)
    answered: int | None = None
    failures: Counter[str] = field(default_factory=Counter)

    @cached_property
    def identity(self) -> JudgeIdentity:
        """Who judges."""
        return judge_identity(self.endpoint, self.prompt)

    @cached_property
    def tasks(self) -> list[JudgeTask]:
        """What there is to judge, read once."""
        return judge_tasks(self.folder / ANSWERS)

    def begin(self, rejects: JsonlStore) -> dict[str, int]:
        """Counts what there is to judge, and what earlier attempts failed on."""
        self.answered = sum(task.answered for task in self.tasks)
        self.failures = outcomes_of(left_rows(rejects, VerdictRow))
        del self.failures[Outcome.TRANSPORT]
        return {}

    def finish(self, result: Result) -> dict[str, int]:
        """Records the unscored turns, when their share is small enough.

        Returns:
            Counts of turns, scored and unscored ones, and of the unscored ones those that had no answer and those that
            the judge failed on, by outcome.

        Raises:
            UserError: there are too many; nothing is marked finished.
        """
        left = left_rows(result.rejects, VerdictRow)
        last = f"{left[-1].id}: {(left[-1].unscored or '').partition(': ')[2]}" if left else ""
        self._check(outcomes_of(left), max(self.answered or 0, 1), last, UserError)
        record_left(result.kept, result.rejects, VerdictRow)
        return _count(result.kept.rows(VerdictRow))

    async def work(self, client: LLMClient, task: JudgeTask) -> VerdictRow | Reject:
        """The verdict on one turn; a failure of the judge becomes a reject that carries the unscored row."""
        if not task.answered:
            return self._row(task, unscored=f"{NO_ANSWER}: {task.dialogue.meta['end']}")
        answer = await client.structured(judge_messages(task, self.folder, self.prompt), JudgeScores, name="judge")
        if answer.value is not None:
            return self._row(task, scores=answer.value)
        outcome = str(answer.outcome)
        row = self._row(task, unscored=f"{outcome}: {answer.detail}")
        if answer.said is not None:  # whole, for whoever asks why there is no score
            row = row.model_copy(update={"meta": row.meta | {"judge_said": answer.said}})
        return lost(f"unscored ({outcome})", answer.detail, outcome, row)

    def stored(self, task: Task, reject: Reject) -> None:
        """Counts an unscored turn that is on disk.

        Raises:
            RunAborted: there are so many that the run can no longer pass.
        """
        if reject.outcome == Outcome.TRANSPORT:  # that is tried again, and has a limit of its own
            return
        self.failures[str(reject.outcome)] += 1
        if self.answered is not None:
            self._check(self.failures, self.answered, f"{task.task_id.rpartition('@')[0]}: {reject.detail}", RunAborted)

    def _row(self, task: JudgeTask, *, scores: JudgeScores | None = None, unscored: str | None = None) -> VerdictRow:
        dialogue = task.dialogue
        category = dialogue.meta.get("category")
        return VerdictRow(
            id=task.verdict_id,
            dialogue=dialogue.id,
            benchmark=dialogue.meta["benchmark"],
            kind=dialogue.kind,
            turn=task.turn,
            scores=scores,
            unscored=unscored,
            judge=self.identity,
            outcome=dialogue.turns[task.turn - 1].meta.get("outcome") if task.answered else None,
            length=len(dialogue.turns),
            category=category if isinstance(category, str) else None,
            strategy=dialogue.strategy,
            sample_of=dialogue.meta.get(SAMPLE_OF),
            meta={"task": task.task_id},
        )

    def _check(self, failures: Counter[str], total: int, last: str, error: type[UserError]) -> None:
        if too_many(failures.total(), total, self.max_unscored_rate):
            reasons = ", ".join(f"{count} {outcome}" for outcome, count in failures.most_common())
            raise error(
                f"judge {self.endpoint.model}: {failures.total()} of {total} verdicts unscored ({reasons}), the "
                f"last {last}; allowed share {self.max_unscored_rate:.1%} (max_unscored_rate); read "
                f"{self.folder / judge_file(UNSCORED, self.name)}, correct the judge and run the same command with "
                "retry=unscored: only these and the missing turns are judged"
            )


def _unscored(row: dict[str, Any]) -> bool:
    """Whether a stored row, kept or rejected, is a turn without scores."""
    return row.get("scores") is None


def outcomes_of(rows: Iterable[VerdictRow]) -> Counter[str]:
    """Turns without a usable verdict, by outcome."""
    return Counter((row.unscored or "").partition(":")[0] for row in rows)


def _count(rows: Iterable[VerdictRow]) -> dict[str, int]:
    counts = Counter(turns=0, scored=0, unscored=0)
    reasons: Counter[str] = Counter()
    for row in rows:
        counts["turns"] += 1
        counts["scored" if row.scores else "unscored"] += 1
        if not row.scores:
            reasons["(no answer)" if not row.answered else f"(judge {(row.unscored or '').partition(':')[0]})"] += 1
    return dict(counts) | dict(reasons.most_common())
