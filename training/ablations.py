"""The paper's ablations as one word, `ablation=NAME`, on any SFT or Stage III config (Tables 4, 5, 8, 9).

A word sets the whole cell: the data, the checkpoint that training starts from, the rule, and the run folder. Adding one
is one entry here. The cell's folders are ROOT/sft_NAME and ROOT/grpo_NAME, next to the full method's.
"""

from dataclasses import dataclass
from typing import Literal

from safer_steer.errors import UserError
from safer_steer_verl.utils.tcsr import PARTNERS

KEY = "ablation="
Stage = Literal["sft", "grpo"]


@dataclass(frozen=True)
class Ablation:
    """What a word stands for, as overrides of each stage; None: it changes nothing there, so the full run serves."""

    grpo: tuple[str, ...]
    sft: tuple[str, ...] | None = None


ABLATIONS: dict[str, Ablation] = {
    # - TCSR: the form's partner, see `without_tcsr`; the rule is known only when the config is composed.
    "no_tcsr": Ablation(()),
    # - feedback dynamics: the planned questions are asked, whatever the student answers.
    "no_feedback_dynamics": Ablation(("safer_steer.feedback_dynamics=false",)),
    # - synthetic bootstrapping: no Stage II, so RL starts from the model before SFT.
    "no_bootstrapping": Ablation(("actor_rollout_ref.model.path=${safer_steer.base_model}",)),
    # Data granularity: a dialogue's last question alone, with all its pictures, in SFT and in the RL that follows it.
    "single_turn": Ablation(
        ("safer_steer.data.turns=last", "actor_rollout_ref.model.path=${root}/sft_single_turn/checkpoint"),
        ("turns=last",),
    ),
}


def named(overrides: list[str]) -> str | None:
    """The ablation that the overrides name.

    Raises:
        UserError: it is unknown, or two are given.
    """
    names = [item.removeprefix(KEY) for item in overrides if item.startswith(KEY)]
    if names and (len(names) > 1 or names[0] not in ABLATIONS):
        raise UserError(f"{KEY}{'+'.join(names)}: give one of {', '.join(ABLATIONS)}")
    return names[0] if names else None


def expand(stage: Stage, overrides: list[str]) -> list[str]:
    """The overrides with `ablation=NAME` put into its own; keys given next to it win.

    Raises:
        UserError: the name is unknown, two are given, or the stage has no part in it.
    """
    name = named(overrides)
    if name is None:
        return overrides
    own = getattr(ABLATIONS[name], stage)
    if own is None:
        have = ", ".join(key for key, item in ABLATIONS.items() if getattr(item, stage) is not None)
        raise UserError(f"{KEY}{name} changes nothing of {stage}; {stage} knows: {have}")
    rest = [item for item in overrides if not item.startswith(KEY)]
    return [f"output=${{root}}/{stage}_{name}", *own, *rest]


def without_tcsr(rule: str) -> str:
    """The rule to compare a form of TCSR with.

    Raises:
        UserError: the rule is no form of TCSR.
    """
    if rule not in PARTNERS:
        raise UserError(f"{KEY}no_tcsr: safer_steer.tcsr.rule {rule} is no form of TCSR; give {' or '.join(PARTNERS)}")
    return PARTNERS[rule]
