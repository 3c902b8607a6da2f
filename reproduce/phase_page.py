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
        f"{GOOD - BREACH:.2f} of a turn's reward, a needless refusal {GOOD - NEEDLESS:.2f}. So without a minimum, "
        f"answering pays up to p = {mean:.4f}, whatever the length. A minimum lowers this limit, most in long "
        f"dialogues: to {even[RELEASED, 5]:.2f} (5 turns) and {even[RELEASED, 8]:.2f} (8 turns) with the released "
        f"alpha of 0.3, to {even[STRONG, 5]:.2f} and {even[STRONG, 8]:.2f} with 0.7, and to {even[PRINTED, 5]:.2f} and "
        f"{even[PRINTED, 8]:.2f} in the printed form. Only between the limits (shaded) do the rules want different "
        "things: the mean wants an answer, the minimum a refusal. Halfway, in a dialogue of 8 turns, refusing saves "
        f"{breaches:.1f} breaches and costs {answers:.1f} useful answers. At alpha 0.3 this strip is at most "
        f"{mean - even[RELEASED, 8]:.2f} wide.\n\n"
        "In training the effect is smaller still. After the first breach of a dialogue, further ones cost the minimum "
        "nothing; so a mixture of answering and refusing is never best. For a student that answers everything, the "
        f"gradient changes its sign at {answering:.4f} under every rule. A student that refuses everything starts to "
        f"answer below {refusing:.2f} (8 turns, alpha 0.3) instead of {mean:.2f}. So the minimum holds back a student "
        "that is cautious already, and does nothing to one that answers everything."
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
    header += [f"a refusing student starts to answer below p =, {rule}" for rule in (RELEASED, STRONG)]
    header += [f"breaches saved / useful answers lost per dialogue, halfway, {rule}" for rule in (RELEASED, STRONG)]
    return table(header, rows)
