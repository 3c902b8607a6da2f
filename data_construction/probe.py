"""Probe (Eq. 7): a seed's question -> a benign and a risk-obfuscated rewrite, in one call for the seed's tasks."""

from pathlib import Path

from data_construction.calls import Answer, Caller
from data_construction.tasks import StageOneTask
from safer_steer.prompts import Prompt

PROMPT = Prompt(Path(__file__).with_name("probe.jinja"))


class Probe(Answer):
    """The two rewrites of a question."""

    benign: str
    obfuscated: str


async def probe(task: StageOneTask, caller: Caller) -> Probe:
    """The rewrites of the task's seed.

    Raises:
        Rejected: no usable answer.
    """
    seed = task.row.seed

    async def call() -> Probe:
        data = {"question": seed.question}
        return await caller.ask(
            "generator", PROMPT, Probe, name="probe", data=data, images=[seed.image], key=[task.row.id]
        )

    return await caller.once(("probe", task.row.id), call)
