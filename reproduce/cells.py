"""The cells, each one trained model: those of the paper's tables, and those that the miniature has besides.

What makes them in a world, and where, is in `miniature.py` and `paper.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from safer_steer.errors import UserError

Known = TypeVar("Known")


@dataclass(frozen=True)
class Cell:
    """One model.

    Attributes:
        title: its name in tables.
        stage: what trains it last: `warm_up`, `sft` or `grpo`.
        folder: of its run, below the run folder; holds `checkpoint/`. The Base has none.
        arguments: besides the config and the run folder; `{root}` is the run folder.
        needs: steps before the training.
        trained_as: the cell whose model this is, where it is one model evaluated in another way; nothing is trained.
        tutor: writes every user turn of the evaluation but the first; None: the benchmark's own user turns.
        printed: its row in the paper's tables, without the size.
    """

    title: str
    stage: str
    folder: str | None = None
    arguments: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    trained_as: str | None = None
    tutor: str | None = None
    printed: str | None = None


PAPER: dict[str, Cell] = {
    "base": Cell("Base", "warm_up", printed="Base"),
    "sft_single_turn": Cell(
        "Single-turn SFT", "sft", "sft_single_turn", ("ablation=single_turn",), ("data",), printed="single-turn SFT"
    ),
    "sft": Cell("Multi-turn SFT", "sft", "sft", (), ("data",), printed="SFT"),
    "grpo": Cell("SFT+GRPO (full)", "grpo", "grpo", (), ("sft",), printed="SaFeR-Steer"),
    "grpo_no_tcsr": Cell("− TCSR", "grpo", "grpo_no_tcsr", ("ablation=no_tcsr",), ("sft",), printed="no TCSR"),
    "grpo_no_feedback_dynamics": Cell(
        "− feedback dynamics",
        "grpo",
        "grpo_no_feedback_dynamics",
        ("ablation=no_feedback_dynamics",),
        ("sft",),
        printed="no feedback dynamics",
    ),
    "grpo_no_bootstrapping": Cell(
        "− bootstrapping",
        "grpo",
        "grpo_no_bootstrapping",
        ("ablation=no_bootstrapping",),
        ("data",),
        printed="no synthetic bootstrapping",
    ),
    "grpo_single_turn": Cell(
        "Single-turn SFT+GRPO",
        "grpo",
        "grpo_single_turn",
        ("ablation=single_turn",),
        ("sft_single_turn",),
        printed="single-turn SFT+GRPO",
    ),
}

# TCSR as its authors run it: one number a dialogue. Returns are a fifth as spread as those of the sum, and so is the KL
# term that goes with them.
_RELEASED = ("safer_steer.tcsr.rule=released", "actor_rollout_ref.actor.kl_loss_coef=0.006")
# Word in a cell's name -> the tutor, and what it is.
ATTACKERS = {
    "adaptive": ("mini-tutor", "attacked as in training"),
    "unseen": ("mini-attacker", "attacked as never in training"),
}
CELLS: dict[str, Cell] = {
    **PAPER,
    "grpo_released": Cell(
        "SFT+GRPO, TCSR as released", "grpo", "grpo_released", ("output={root}/grpo_released", *_RELEASED), ("sft",)
    ),
    "grpo_released_no_tcsr": Cell(
        "− TCSR as released",
        "grpo",
        "grpo_released_no_tcsr",
        ("ablation=no_tcsr", "output={root}/grpo_released_no_tcsr", *_RELEASED),
        ("sft",),
    ),
    **{
        f"{name}_{word}": replace(PAPER[name], title=f"{PAPER[name].title}, {what}", trained_as=name, tutor=tutor)
        for word, (tutor, what) in ATTACKERS.items()
        for name in ("grpo", "grpo_no_feedback_dynamics")
    },
}

# The phase diagram's models, in the order of its labels.
PHASE: dict[str, Cell] = {
    **{name: CELLS[name] for name in ("sft", "grpo_released_no_tcsr", "grpo_released")},
    "grpo_released_strong": Cell(
        "SFT+GRPO, TCSR as released, alpha 0.7",
        "grpo",
        "grpo_released_strong",
        ("output={root}/grpo_released_strong", *_RELEASED, "safer_steer.tcsr.alpha=0.7"),
        ("sft",),
    ),
}

# Models whose safety is shown against their helpfulness, and the rule that trained them.
FRONTIER = {
    "base": "Base",
    "sft": "SFT",
    "grpo": "TCSR as printed",
    "grpo_no_tcsr": "plain sum",
    "grpo_released": "TCSR as released",
    "grpo_released_no_tcsr": "mean",
}


def choose(known: Mapping[str, Known], only: str | None) -> dict[str, Known]:
    """The cells that `--only NAME[,NAME...]` names, in the order of the tables; all without it.

    Raises:
        UserError: a name is unknown; the message lists the choices.
    """
    if only is None:
        return dict(known)
    asked = [name.strip() for name in only.split(",")]
    if unknown := [name for name in asked if name not in known]:
        raise UserError(f"--only: unknown name(s) {', '.join(map(repr, unknown))}; choose from {', '.join(known)}")
    return {name: cell for name, cell in known.items() if name in asked}
