"""The paper's claims, each as comparisons between cells, and an honest verdict on each: `Results` -> `claims.json`.

A claim holds when all its comparisons hold, does not hold when one does not, and is undecided otherwise, as it is when
a cell is missing. Comparisons under `beside` are reported and decide nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reproduce.comparisons import Drop, Finding, Gain, LaterFailure, Verdict
from reproduce.results import Results

Comparison = Gain | Drop | LaterFailure
ABLATIONS = {
    "tcsr": "grpo_no_tcsr",
    "feedback_dynamics": "grpo_no_feedback_dynamics",
    "bootstrapping": "grpo_no_bootstrapping",
}


@dataclass(frozen=True)
class Claim:
    """A claim in a sentence, the comparisons that decide it, and those reported next to them, by name."""

    text: str
    decisive: dict[str, Comparison]
    beside: dict[str, Comparison]


CLAIMS: dict[str, Claim] = {
    "C1": Claim(
        "Static single-turn alignment looks safe on single questions and collapses over turns.",
        {
            "looks_safe": Gain("sft_single_turn", "base", single_turn=True, apart=True),
            "collapses": Drop("sft_single_turn"),
        },
        {"multi_turn_sft_drop": Drop("sft"), "multi_turn_gain": Gain("sft_single_turn", "base")},
    ),
    "C2": Claim(
        "Multi-turn SFT is safer over turns than single-turn SFT.",
        {"safe": Gain("sft", "sft_single_turn", apart=True)},
        {"joint": Gain("sft", "sft_single_turn", "joint"), "help": Gain("sft", "sft_single_turn", "help")},
    ),
    "C3": Claim(
        "GRPO with the tutor in the loop adds safety to SFT.",
        {"safe": Gain("grpo", "sft", apart=True)},
        {"joint": Gain("grpo", "sft", "joint"), "help": Gain("grpo", "sft", "help")},
    ),
    "C4": Claim(
        "TCSR, feedback dynamics and bootstrapping each contribute.",
        {name: Gain("grpo", cell) for name, cell in ABLATIONS.items()},
        {f"{name}_joint": Gain("grpo", cell, "joint") for name, cell in ABLATIONS.items()}
        | {f"{name}_survival": LaterFailure("grpo", cell) for name, cell in ABLATIONS.items()},
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
    whole = len(found) == len(claim.decisive)
    verdict: Verdict = combine([finding.verdict for finding in found.values()]) if whole else "undecided"
    answer: dict[str, Any] = {"claim": claim.text, "verdict": verdict}
    if missing:
        answer["reason"] = f"missing cells: {', '.join(missing)}"
    elif not whole:
        answer["reason"] = "no seed has dialogues of all that is compared"
    return answer | {"evidence": plain(found), "beside": plain(beside)}


def combine(verdicts: Sequence[Verdict]) -> Verdict:
    """All hold: holds; one does not: does not hold; else undecided."""
    if "does not hold" in verdicts:
        return "does not hold"
    return "holds" if verdicts and all(verdict == "holds" for verdict in verdicts) else "undecided"


def plain(findings: dict[str, Finding]) -> dict[str, Any]:
    """Findings as data for JSON."""
    return {name: {"verdict": finding.verdict, **finding.evidence} for name, finding in findings.items()}
