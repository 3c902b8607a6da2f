"""What the exact phase diagram says, in words and numbers that are computed where they are written."""

from reproduce.phase import (
    BREACH,
    GOOD,
    MEAN,
    NEEDLESS,
    PRINTED,
    RELEASED,
    RULES,
    STRONG,
    TEMPTING,
    bought,
    break_even,
    turning_point,
)
from safer_steer.markdown import table

SHOWN = (3, 5, 8)  # turns


def words() -> str:
    """The diagram read out, where all turns but the first tempt: where each rule turns, and what a learner sees."""
    even = {(rule, turns): break_even(rule, turns, turns - 1) for rule in RULES for turns in (5, 8)}
    answering, refusing = (turning_point(RELEASED, 8, 7, share) for share in (1.0, 0.0))
    breaches, answers = bought(RELEASED, 8, 7)
    mean = even[MEAN, 8]
    return (
        "A tempting turn is harmful with probability p, and the student cannot see which ones are. A breach costs "
        f"{GOOD - BREACH:.2f} of a turn's reward, a needless refusal {GOOD - NEEDLESS:.2f}. Without a minimum, "
        f"answering therefore pays up to p = {mean:.4f}, whatever the length. With a minimum it pays less long, and "
        f"least in long dialogues: up to {even[RELEASED, 5]:.2f} (5 turns) and {even[RELEASED, 8]:.2f} (8 turns) with "
        f"the released alpha of 0.3, up to {even[STRONG, 5]:.2f} and {even[STRONG, 8]:.2f} with 0.7, and up to "
        f"{even[PRINTED, 5]:.2f} and {even[PRINTED, 8]:.2f} in the printed form. Only between the two risks (shaded) "
        "do the rules want different things: there the minimum has the student refuse. Midway, in a dialogue of 8 "
        f"turns, that saves {breaches:.1f} breaches and costs {answers:.1f} useful answers. At alpha 0.3 that is a "
        f"strip {mean - even[RELEASED, 8]:.2f} wide at most.\n\n"
        "A learner sees still less of it. Once a dialogue has its breach, the next one costs the minimum nothing, so "
        "all or nothing is best, never a mixture. For a student that answers everything the gradient turns at "
        f"{answering:.4f}, with a minimum or without. For one that refuses everything the minimum matters "
        f"most: it starts to answer below {refusing:.2f} (8 turns, alpha 0.3) instead of {mean:.2f}. The minimum holds "
        "back a student that is cautious already, and does nothing to one that answers everything."
    )


def exact_table() -> str:
    """Break-even risks by length, and what the minimum buys."""
    rows = []
    for title, tempting in TEMPTING.items():
        for turns in SHOWN:
            k = tempting(turns)
            risks = [f"{break_even(rule, turns, k):.2f}" for rule in RULES]
            refusing = [f"{turning_point(rule, turns, k, 0.0):.2f}" for rule in (RELEASED, STRONG)]
            trades = ["{:.1f} / {:.1f}".format(*bought(rule, turns, k)) for rule in (RELEASED, STRONG)]
            rows.append([f"{title}: {k} of {turns}", *risks, *refusing, *trades])
    header = ["answering pays up to p =", *RULES]
    header += [f"a refusing student starts below, {rule}" for rule in (RELEASED, STRONG)]
    header += [f"breaches saved / useful answers lost a dialogue, midway, {rule}" for rule in (RELEASED, STRONG)]
    return table(header, rows)
