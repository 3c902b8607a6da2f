"""M2, adversarial intent rewriting: question, strategy, forensics -> the question in the strategy's disguise."""

from data_construction.calls import Answer
from data_construction.quality.writer import Writer
from data_construction.red_team.forensics import Forensics
from data_construction.tasks import StageOneTask


class Intent(Answer):
    """The rewritten question, and why it fits the strategy."""

    rationale: str
    rewritten: str


async def rewrite_intent(task: StageOneTask, forensics: Forensics, writer: Writer) -> Intent:
    """Rewrites the seed's question under the task's strategy.

    Raises:
        Rejected: no usable answer.
    """
    seed = task.row.seed
    data = {"question": seed.question, "strategy": task.strategy.as_data(), "forensics": forensics.model_dump()}
    return await writer.write(
        "intent",
        Intent,
        data=data,
        images=[seed.image],
        key=[task.task_id],
        texts=lambda intent: [intent.rewritten],
    )
