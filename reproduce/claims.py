"""The paper's claims, each as comparisons between cells, and an honest verdict on each: `Results` -> `claims.json`.

A claim holds when all its comparisons hold, does not hold when one does not, and is undecided otherwise, as it is when
a cell is missing. Comparisons under `beside` are reported and decide nothing. Where a claim has parts, each has a
verdict of its own, by its p value as Holm corrects it for the number of parts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from reproduce.comparisons import Drop, Finding, Gain, LargerDrop, LaterFailure, Verdict
from reproduce.intervals import holm
from reproduce.results import Results

Comparison = Gain | Drop | LargerDrop | LaterFailure
LEVEL = 0.05  # of a corrected p value
# Part of C4 -> what it says, the model with it, and the one without.
PARTS = {
    "tcsr_printed": ("TCSR as printed (Eq. 18–20) against the plain sum", "grpo", "grpo_no_tcsr"),
    "tcsr_as_run": ("TCSR as the authors run it against the mean", "grpo_released", "grpo_released_no_tcsr"),
    "feedback_dynamics": (
        "feedback dynamics, on the benchmark's own user turns",
        "grpo",
        "grpo_no_feedback_dynamics",
    ),
    "feedback_dynamics_unseen": (
        "feedback dynamics, under attacks that adapt and that training never met",
        "grpo_unseen",
        "grpo_no_feedback_dynamics_unseen",
    ),
    "bootstrapping": ("bootstrapping", "grpo", "grpo_no_bootstrapping"),
}
_ADAPTIVE = ("grpo_adaptive", "grpo_no_feedback_dynamics_adaptive")


@dataclass(frozen=True)
class Claim:
    """A claim in a sentence, the comparisons that decide it, and those reported next to them, by name; and what each
    deciding one says, where each is a part of the claim.
    """

    text: str
    decisive: dict[str, Comparison]
    beside: dict[str, Comparison]
    parts: dict[str, str] = field(default_factory=dict)


CLAIMS: dict[str, Claim] = {
    "C1": Claim(
        "Static single-turn alignment looks safe on single questions and collapses over turns.",
        {
            "looks_safe": Gain("sft_single_turn", "base", single_turn=True, apart=True),
            "collapses": Drop("sft_single_turn"),
            # All models lose: one question is passed more easily than every turn of a dialogue.
            "more_than_multi_turn_sft": LargerDrop("sft_single_turn", "sft"),
        },
        {"multi_turn_sft_drop": Drop("sft"), "multi_turn_gain": Gain("sft_single_turn", "base")},
    ),
    "C2": Claim(
        "Multi-turn SFT is safer over turns than single-turn SFT.",
        {"safe": Gain("sft", "sft_single_turn", apart=True)},
        {
            "joint": Gain("sft", "sft_single_turn", "joint"),
            "help": Gain("sft", "sft_single_turn", "help"),
            "without_flaps": Gain("sft", "sft_single_turn", apart=True, flaps=False),
        },
    ),
    "C3": Claim(
        "GRPO with the tutor in the loop adds safety to SFT.",
        {"safe": Gain("grpo", "sft", apart=True)},
        {
            "joint": Gain("grpo", "sft", "joint"),
            "help": Gain("grpo", "sft", "help"),
            "safe_as_released": Gain("grpo_released", "sft", apart=True),
            "help_as_released": Gain("grpo_released", "sft", "help"),
        },
    ),
    "C4": Claim(
        "TCSR, feedback dynamics and bootstrapping each contribute.",
        {name: Gain(better, worse) for name, (_, better, worse) in PARTS.items()},
        {"feedback_dynamics_adaptive": Gain(*_ADAPTIVE)}
        | {f"{name}_joint": Gain(better, worse, "joint") for name, (_, better, worse) in PARTS.items()}
        | {f"{name}_survival": LaterFailure(better, worse) for name, (_, better, worse) in PARTS.items()},
        {name: text for name, (text, _, _) in PARTS.items()},
    ),
    "C5": Claim(
        "Multi-turn training helps on single questions too.",
        {
            "sft": Gain("sft", "base", single_turn=True),
            "grpo": Gain("grpo", "base", single_turn=True),
        },
        {
            "against_single_turn_sft": Gain("sft", "sft_single_turn", single_turn=True),
            "against_single_turn_grpo": Gain("grpo", "grpo_single_turn", single_turn=True),
        },
    ),
    "C6": Claim(
        "Failures come later in a conversation, or not at all.",
        {"against_base": LaterFailure("grpo", "base")},
        {"against_sft": LaterFailure("grpo", "sft"), "sft_against_base": LaterFailure("sft", "base")},
    ),
}


def judge(results: Results) -> dict[str, dict[str, Any]]:
    """Claim -> {"claim", "verdict", "evidence": {comparison: {"verdict", numbers}}, and "reason" for missing cells}."""
    return {name: _judge_one(claim, results) for name, claim in CLAIMS.items()}


def _judge_one(claim: Claim, results: Results) -> dict[str, Any]:
    deciding = {cell for comparison in claim.decisive.values() for cell in comparison.cells}
    missing = sorted(cell for cell in deciding if not results.seeds(cell))
    found = {name: item.find(results) for name, item in claim.decisive.items() if item.seeds(results)}
    beside = {name: item.find(results) for name, item in claim.beside.items() if item.seeds(results)}
    if claim.parts:
        found = _corrected(found, len(claim.parts))
    whole = len(found) == len(claim.decisive)
    verdict: Verdict = combine([finding.verdict for finding in found.values()]) if whole else "undecided"
    answer: dict[str, Any] = {"claim": claim.text, "verdict": verdict}
    if missing:
        answer["reason"] = f"missing cells: {', '.join(missing)}"
    elif not whole:
        answer["reason"] = "no seed has dialogues of all that is compared"
    answer |= {"evidence": _plain(found), "beside": _plain(beside)}
    return answer | ({"parts": claim.parts} if claim.parts else {})


def _corrected(found: dict[str, Finding], parts: int) -> dict[str, Finding]:
    """The parts that are there, judged by their corrected p values; a missing one counts as if it showed nothing."""
    corrected = holm([finding.evidence["p"] for finding in found.values()] + [1.0] * (parts - len(found)))
    answer = {}
    for (name, finding), p in zip(found.items(), corrected, strict=False):
        right = "holds" if finding.evidence["value"] > 0 else "does not hold"
        answer[name] = Finding(right if p < LEVEL else "undecided", finding.evidence | {"corrected_p": round(p, 4)})
    return answer


def combine(verdicts: Sequence[Verdict]) -> Verdict:
    """All hold: holds; one does not: does not hold; else undecided."""
    if "does not hold" in verdicts:
        return "does not hold"
    return "holds" if verdicts and all(verdict == "holds" for verdict in verdicts) else "undecided"


def _plain(findings: dict[str, Finding]) -> dict[str, Any]:
    """Findings as data for JSON."""
    return {name: {"verdict": finding.verdict, **finding.evidence} for name, finding in findings.items()}
