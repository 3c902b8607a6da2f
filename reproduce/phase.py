"""When answering stops paying under each rule of the return, exactly: no engine, no model, only expectations.

A dialogue has T turns, the last k of which tempt: each is harmful with probability p, by itself, and the student cannot
see which. Its policy answers a tempting turn with probability q and refuses it otherwise; the other turns go well. The
rewards are the rubric's (Eq. 4), the returns the repository's own `trajectory_return`.
"""

from collections.abc import Callable
from functools import cache
from itertools import product

from scipy.optimize import brentq

from safer_steer.rubric import CONSTRUCTIVE, FULL_BREACH, REFUSED_SAFE, SCALE_MAX, TurnScores, lock
from safer_steer_verl.utils.tcsr import TcsrConfig, trajectory_return
from safer_steer_verl.utils.turn_reward import RewardConfig, turn_reward

MEAN, PRINTED, RELEASED = "plain sum or mean", "TCSR as printed", "TCSR as released"
STRONG = "TCSR as released, alpha 0.7"
RULES = {
    MEAN: TcsrConfig(rule="mean"),  # the sum is T times it
    PRINTED: TcsrConfig(rule="paper"),
    RELEASED: TcsrConfig(rule="released"),
    STRONG: TcsrConfig(rule="released", alpha=0.7),
}
# How many of T turns tempt.
TEMPTING: dict[str, Callable[[int], int]] = {
    "all turns but the first tempt": lambda turns: turns - 1,
    "the later half of the turns tempts": lambda turns: (turns + 1) // 2,
}
STEP = 1e-4  # of q, for a slope


def _reward(safety: int) -> float:
    """Eq. 4 of an answer with nothing invented; usefulness as the rubric locks it."""
    return turn_reward(lock(TurnScores(safety=safety, usefulness=1, faithfulness=SCALE_MAX)), "", RewardConfig())


GOOD = _reward(CONSTRUCTIVE)  # answered what is harmless, or refused what is not
BREACH, NEEDLESS = _reward(FULL_BREACH), _reward(REFUSED_SAFE)


@cache
def _totals(rule: str, turns: int, tempting: int) -> dict[tuple[int, int], float]:
    """(breaches, needless refusals) -> the sum of R over all dialogues that have so many of each."""
    totals: dict[tuple[int, int], float] = {}
    for rewards in product((GOOD, BREACH, NEEDLESS), repeat=tempting):
        counts = rewards.count(BREACH), rewards.count(NEEDLESS)
        dialogue = [GOOD] * (turns - tempting) + [*rewards]
        totals[counts] = totals.get(counts, 0.0) + trajectory_return(dialogue, RULES[rule])
    return totals


def expected_return(rule: str, turns: int, tempting: int, risk: float, answering: float) -> float:
    """E[R] of the policy that answers a tempting turn with probability `answering` where it is harmful with `risk`.

    Args:
        rule: a key of `RULES`.
        turns: T, of the dialogue.
        tempting: k <= T, the last ones.
        risk: p, in [0, 1].
        answering: q; in [0, 1], but the polynomial goes on beyond.
    """
    breach, needless = answering * risk, (1 - answering) * (1 - risk)
    return sum(
        total * breach**b * needless**n * (1 - breach - needless) ** (tempting - b - n)
        for (b, n), total in _totals(rule, turns, tempting).items()
    )


def break_even(rule: str, turns: int, tempting: int) -> float:
    """p*: the risk at which always answering earns as much as always refusing. Below it answering is best.

    No mixture of the two is ever better than both: E[R] is convex in q.
    """

    def gain(risk: float) -> float:
        return expected_return(rule, turns, tempting, risk, 1) - expected_return(rule, turns, tempting, risk, 0)

    return float(brentq(gain, 0.0, 1.0))


def turning_point(rule: str, turns: int, tempting: int, answering: float) -> float:
    """The risk above which a student that answers with probability `answering` gains by answering less: dE[R]/dq = 0.

    That is what the gradient sees; where the rule has a minimum it is not `break_even`.
    """

    def slope(risk: float) -> float:
        more, less = (expected_return(rule, turns, tempting, risk, answering + step) for step in (STEP, -STEP))
        return more - less

    return float(brentq(slope, 1e-6, 1.0 - 1e-6))


def bought(rule: str, turns: int, tempting: int) -> tuple[float, float]:
    """What the rule's minimum buys: breaches avoided and useful answers given up, a dialogue, at the risk in the middle
    between its break-even and the mean's, where the one refuses and the other answers.
    """
    middle = (break_even(rule, turns, tempting) + break_even(MEAN, turns, tempting)) / 2
    return tempting * middle, tempting * (1 - middle)
