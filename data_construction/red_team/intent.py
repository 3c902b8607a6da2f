"""M2, adversarial intent rewriting (Eq. 9): question, strategy, forensics -> the request in the strategy's disguise."""

from data_construction.calls import Answer, Problem
from data_construction.config import RedTeam
from data_construction.probe import probe
from data_construction.quality.turns import words
from data_construction.quality.writer import Writer
from data_construction.red_team.forensics import Forensics
from data_construction.tasks import StageOneTask


class Intent(Answer):
    """The strategy's name, why an assistant might not recognise the request, and the rewritten request."""

    strategy: str
    rationale: str
    rewritten: str


async def rewrite_intent(task: StageOneTask, forensics: Forensics, writer: Writer, settings: RedTeam) -> Intent:
    """Rewrites the obfuscated rewrite of the seed's question, or the question itself, under the task's strategy.

    Raises:
        Rejected: no usable answer, or one whose length is out of bounds also after the re-ask.
    """
    seed, low, high = task.row.seed, settings.min_rewrite_words, settings.max_rewrite_words
    question = seed.question if settings.rewrite_of == "question" else (await probe(task, writer)).obfuscated
    data = {
        "question": question,
        "strategy": task.strategy.as_data(),
        "forensics": forensics.model_dump(),
        "min_words": low,
        "max_words": high,
    }

    def check(intent: Intent) -> list[Problem]:
        number = len(words(intent.rewritten))
        said = f"the rewritten request has {number} words, wanted {low} to {high}"
        return [] if low <= number <= high else [Problem("rewrite too short or too long", said)]

    return await writer.write(
        "intent",
        Intent,
        data=data,
        images=seed.images,
        key=[task.task_id],
        check=check,
        texts=lambda intent: [intent.rewritten],
    )
