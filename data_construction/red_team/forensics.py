"""M1, visual forensic analysis: the picture -> what it shows, things with two uses, all text, missing precautions."""

from data_construction.calls import Answer
from data_construction.quality.writer import Writer
from data_construction.tasks import StageOneTask


class Forensics(Answer):
    """What the picture holds."""

    description: str
    dual_use_items: list[str]
    visible_text: list[str]
    missing_precautions: list[str]


async def analyse(task: StageOneTask, writer: Writer) -> Forensics:
    """The analysis of the seed's picture, in one call for all strategies; without a picture an empty one.

    Raises:
        Rejected: no usable answer.
    """
    seed = task.row.seed
    if not seed.images:
        return Forensics(description="no picture", dual_use_items=[], visible_text=[], missing_precautions=[])

    async def call() -> Forensics:
        data = {"question": seed.question}
        return await writer.write("forensics", Forensics, data=data, images=seed.images, key=[task.row.id])

    return await writer.caller.once(("forensics", task.row.id), call)
