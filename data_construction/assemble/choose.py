"""The choice of the three splits: each pool, the rules on its rows, its quotas. Reads rows, writes none."""

from collections.abc import Iterable, Mapping, Sequence

from data_construction.assemble.facts import RowFacts
from data_construction.assemble.select import Pool, Pools, Rule, Selection, select, shares_with
from data_construction.bootstrap.keep import why_dropped
from data_construction.config import Bootstrap, DataConfig, NearDuplicates
from data_construction.history import HistoryRisk, depends_on_history
from data_construction.quality.dedup import Duplicates
from data_construction.score import candidate_rules
from safer_steer.dialogue import Dialogue, Turn
from safer_steer.errors import UserError

SPLITS = ("sft", "rl", "bench")


def choose(
    config: DataConfig,
    pools: Pools,
    dialogues: Sequence[RowFacts],
    bootstrapped: Sequence[RowFacts],
    risks: Mapping[str, HistoryRisk],
) -> dict[str, Selection]:
    """The rows of each split.

    Bench comes first: no row of SFT or RL repeats one of its pool's. RL repeats none of SFT and shares no seed with it.

    Args:
        config: sizes, mixes, thresholds.
        pools: which row may go where.
        dialogues: Stage I's rows, for RL and bench, and for SFT where its origin is `answered`.
        bootstrapped: Stage II's rows, for SFT where they are its origin.
        risks: the judgements of step `history` by dialogue id; read only when RL asks for history-dependence.

    Raises:
        UserError: a split that was asked for has no row.
    """
    settings, seed = config.assemble, config.seed
    pool = {name: [row for row in dialogues if pools.pool(row) == name] for name in SPLITS}
    duplicates = SplitDuplicates(config.quality.near_duplicates)
    bench = select(pool["bench"], settings.bench, seed, "bench")
    duplicates.add(pool["bench"], "bench")
    if settings.sft.origin == "bootstrapped":
        for_sft, first = bootstrapped, [still_in(pools, "sft")]
        rules = [*candidate_rules(config, "sft"), keep_rule(config.bootstrap)]
    else:
        for_sft, first, rules = pool["sft"], [has_answers], candidate_rules(config, "sft")
    sft = select(for_sft, settings.sft, seed, "sft", [*first, *rules, duplicates.rule])
    duplicates.add(sft.rows, "sft")
    rules = [*candidate_rules(config, "rl"), shares_with(sft.rows)]
    if settings.rl.history_dependent:
        rules.append(depends_on_history(settings.rl.history_dependent, risks))
    rl = select(pool["rl"], settings.rl, seed, "rl", [*rules, duplicates.rule])
    chosen = {"sft": sft, "rl": rl, "bench": bench}
    for name in SPLITS:
        size, selection = getattr(settings, name).size, chosen[name]
        if size != 0 and not selection.rows:
            reasons = ", ".join(f"{number} {reason}" for reason, number in selection.reasons().items())
            raise UserError(
                f"assemble.{name}: none of {'all' if size is None else size} rows could be found"
                + (f" (left out: {reasons})" if reasons else "")
                + f"; {_advice(config, name)}, or set its size to 0"
            )
    return chosen


def _advice(config: DataConfig, split: str) -> str:
    if split != "sft":
        return "see rejects.jsonl"
    if config.assemble.sft.origin == "bootstrapped":
        return "see keep_rule.md and bootstrap_rejects.jsonl"
    return "see rejects.jsonl; SFT takes benign rows whose every turn has an answer (expand.benign_answers)"


def still_in(pools: Pools, split: Pool) -> Rule:
    """Leaves out rows that were bootstrapped for this split under another `rl_share`."""
    return lambda row: "" if pools.pool(row) == split else "set aside for another split"


def has_answers(row: RowFacts) -> str:
    """A rule for rows that are to be learnt from as Stage I made them."""
    return "" if row.answered else "no answers"


def keep_rule(config: Bootstrap) -> Rule:
    """Eq. 15 as a rule on scored rows."""

    def rule(row: RowFacts) -> str:
        reason = why_dropped(row.measures, config.tau_safe, config.tau_help)
        return f"keep rule: {reason}" if reason else ""

    return rule


class SplitDuplicates:
    """The user turns of the splits filled so far.

    Stage I has compared all dialogues as they were written; bootstrapping rewrites user turns afterwards, so a train
    row may have come to say what a row of another split says.
    """

    def __init__(self, settings: NearDuplicates | None):
        self._found = Duplicates(settings)

    def add(self, rows: Iterable[RowFacts], split: str) -> None:
        """Takes a split's rows in, as they are and, where bootstrapping rewrote them, as their template."""
        for facts in rows:
            row = facts.read()
            users, templates = [turn.user for turn in row.turns], [turn.template or turn.user for turn in row.turns]
            for number, said in enumerate([users, templates] if templates != users else [users]):
                self._found.add(self._found.content(_saying(row, said)), f"{split}/{row.id}/{number}", split)

    def rule(self, facts: RowFacts) -> str:
        """Leaves out rows that say what a row taken in says; the reason names its split."""
        row = facts.read()
        match = self._found.find(self._found.content(_saying(row, [turn.user for turn in row.turns])))
        return f"{match.reason} of {match.label}" if match else ""


def _saying(row: Dialogue, users: Sequence[str]) -> Dialogue:
    return row.model_copy(update={"turns": [Turn(user=text) for text in users]})
