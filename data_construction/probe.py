"""Probe (Eq. 7): a seed's question -> a benign and a risk-obfuscated rewrite, in one call for the seed's tasks."""

from data_construction.calls import Answer, Problem
from data_construction.quality.turns import longest_turn, turn_problems
from data_construction.quality.writer import Writer
from data_construction.tasks import StageOneTask


class Probe(Answer):
    """The two rewrites of a question."""

    benign: str
    obfuscated: str


async def probe(task: StageOneTask, writer: Writer) -> Probe:
    """The rewrites of the task's seed.

    Raises:
        Rejected: no usable answer, or a rewrite breaks a rule.
    """
    seed, injected, rules = task.row.seed, task.row.injected, writer.rules

    def check(rewrites: Probe) -> list[Problem]:
        # A rewrite is no conversation yet: it may ask in several sentences, and its turns will refer to the picture.
        free = {"several questions in a turn", "no reference to the picture"}
        texts = (rewrites.benign, rewrites.obfuscated)
        found = [problem for text in texts for problem in turn_problems([text], 1, rules, seed.question)]
        return [problem for problem in found if problem.reason not in free]

    async def call() -> Probe:
        return await writer.write(
            "probe",
            Probe,
            data={"question": seed.question, "max_words": longest_turn(rules, seed.question)},
            images=[injected.original] if injected else seed.images,  # the same for all of the seed's tasks
            key=[task.row.id],
            check=check,
            texts=lambda rewrites: [rewrites.benign, rewrites.obfuscated],
        )

    return await writer.caller.once(("probe", task.row.id), call)
