"""Fairer tests of claim C4, where the paper's own form leaves it undecided; they are reported and decide no claim.

Their cells are made by `scripts/reproduce.sh miniature --fairer`; `configs/reproduce/fairer.yaml` has their settings.
"""

from dataclasses import dataclass
from typing import Any

from miniature.reproduce.cells import ADAPTIVE, VARIANT
from miniature.reproduce.claims import ABLATIONS, Comparison, plain
from miniature.reproduce.comparisons import Gain, LaterFailure
from miniature.reproduce.results import Results


@dataclass(frozen=True)
class Attempt:
    """What is made fairer, in a sentence, and what is compared, by name."""

    text: str
    comparisons: dict[str, Comparison]


_FULL = f"{ADAPTIVE}grpo"
_MINIMUM, _MEAN = f"{VARIANT}min_mean", f"{VARIANT}mean"
ATTEMPTS: dict[str, Attempt] = {
    "adaptive": Attempt(
        "The tutor of training writes every user turn but the first, so that attacks answer the model.",
        {name: Gain(_FULL, ADAPTIVE + cell) for name, cell in ABLATIONS.items()}
        | {f"{name}_joint": Gain(_FULL, ADAPTIVE + cell, "joint") for name, cell in ABLATIONS.items()}
        | {f"{name}_survival": LaterFailure(_FULL, ADAPTIVE + cell) for name, cell in ABLATIONS.items()},
    ),
    "one_number": Attempt(
        "The released code's rule, one number for the dialogue: 0.3 of its minimum and 0.7 of its mean, in which a "
        "late failure costs as much as an early one; against the mean alone.",
        {
            "tcsr": Gain(_MINIMUM, _MEAN),
            "tcsr_joint": Gain(_MINIMUM, _MEAN, "joint"),
            "tcsr_survival": LaterFailure(_MINIMUM, _MEAN),
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
