"""Fairer tests of claim C4, where the paper's own form leaves it undecided; they are reported and decide no claim.

Their cells are made by `scripts/reproduce.sh miniature --fairer`; `configs/reproduce/fairer.yaml` has their settings.
"""

from dataclasses import dataclass
from typing import Any

from reproduce.claims import ABLATIONS, Comparison, plain
from reproduce.comparisons import Gain, LaterFailure
from reproduce.miniature import ADAPTIVE, VARIANT
from reproduce.results import Results


@dataclass(frozen=True)
class Attempt:
    """What is made fairer, in a sentence, and what is compared, by name."""

    text: str
    comparisons: dict[str, Comparison]


_FULL = f"{ADAPTIVE}grpo"
_OPEN = {name: cell for name, cell in ABLATIONS.items() if name != "bootstrapping"}  # that one is plain in any form
_STATIC = f"{VARIANT}static_"
ATTEMPTS: dict[str, Attempt] = {
    "adaptive": Attempt(
        "The tutor of training writes every user turn but the first, so that attacks answer the model.",
        {name: Gain(_FULL, ADAPTIVE + cell) for name, cell in _OPEN.items()}
        | {f"{name}_joint": Gain(_FULL, ADAPTIVE + cell, "joint") for name, cell in _OPEN.items()}
        | {f"{name}_survival": LaterFailure(_FULL, ADAPTIVE + cell) for name, cell in _OPEN.items()},
    ),
    "weaker_student": Attempt(
        "GRPO starts from single-turn SFT, which refuses at once and gives in later: there is more to win, and late. "
        "Few of its dialogues pass whole, so mean harmlessness is compared too.",
        {
            "full": Gain(f"{_STATIC}full", "sft_single_turn"),
            "tcsr": Gain(f"{_STATIC}full", f"{_STATIC}no_tcsr"),
            "feedback_dynamics": Gain(f"{_STATIC}full", f"{_STATIC}no_feedback_dynamics"),
            "full_harmlessness": Gain(f"{_STATIC}full", "sft_single_turn", "harmlessness"),
            "tcsr_harmlessness": Gain(f"{_STATIC}full", f"{_STATIC}no_tcsr", "harmlessness"),
            "feedback_dynamics_harmlessness": Gain(f"{_STATIC}full", f"{_STATIC}no_feedback_dynamics", "harmlessness"),
        },
    ),
    "one_number": Attempt(
        "As the weaker student, with the released code's rule, one number for the dialogue: 0.3 of its minimum and 0.7 "
        "of its mean, in which a late failure costs as much as an early one.",
        {
            "tcsr": Gain(f"{_STATIC}min_mean", f"{_STATIC}no_tcsr"),
            "tcsr_harmlessness": Gain(f"{_STATIC}min_mean", f"{_STATIC}no_tcsr", "harmlessness"),
            "against_the_sum_of_tcsr_harmlessness": Gain(f"{_STATIC}min_mean", f"{_STATIC}full", "harmlessness"),
        },
    ),
}


def attempt(results: Results) -> dict[str, dict[str, Any]]:
    """Attempt -> {"text", "evidence": {comparison: {"verdict", numbers}}}; those whose cells are missing are left
    out.
    """
    found = {
        name: {part: item.find(results) for part, item in one.comparisons.items() if item.seeds(results)}
        for name, one in ATTEMPTS.items()
    }
    return {name: {"text": ATTEMPTS[name].text, "evidence": plain(parts)} for name, parts in found.items() if parts}
