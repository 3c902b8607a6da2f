"""The choice of the three splits: each pool, the rules on its rows, its quotas. Reads rows, writes none."""

from collections.abc import Mapping, Sequence

from data_construction.assemble.duplicates import SplitDuplicates
from data_construction.assemble.facts import RowFacts
from data_construction.assemble.history import HistoryRisk, depends_on_history
from data_construction.assemble.select import Pools, Rule, Selection, select, shares_with
from data_construction.bootstrap.keep import why_dropped
from data_construction.config import Bootstrap, DataConfig
from safer_steer.errors import UserError

SPLITS = ("sft", "rl", "bench")


def choose(
    config: DataConfig,
    pools: Pools,
    dialogues: Sequence[RowFacts],
    candidates: Sequence[RowFacts],
    risks: Mapping[str, HistoryRisk],
) -> dict[str, Selection]:
    """The rows of each split.

    Bench comes first: no row of SFT or RL repeats one of its pool's. RL repeats none of SFT and shares no seed with it.

    Args:
        config: sizes, mixes, thresholds.
        pools: which row may go where.
        dialogues: Stage I's rows, for RL and bench.
        candidates: the rows that SFT is chosen from.
        risks: the judgements of step `history` by dialogue id; read only when RL asks for history-dependence.

    Raises:
        UserError: a split that was asked for has no row.
    """
    settings, seed = config.assemble, config.seed
    pool = {name: [row for row in dialogues if pools.pool(row) == name] for name in ("rl", "bench")}
    with SplitDuplicates(config.quality.near_duplicates) as duplicates:
        bench = select(pool["bench"], settings.bench, seed, "bench")
        duplicates.add(pool["bench"], "bench")
        for_sft = [row for row in candidates if pools.pool(row) == "sft"]
        rules: list[Rule] = [keep_rule(config.bootstrap)] if settings.sft.origin == "bootstrapped" else []
        sft = select(for_sft, settings.sft, seed, "sft", [*rules, duplicates.rule])
        duplicates.add(sft.rows, "sft")
        rules = [shares_with(sft.rows)]
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
                + "; see rejects.jsonl and keep_rule.md, or set its size to 0"
            )
    return chosen


def keep_rule(config: Bootstrap) -> Rule:
    """Eq. 15 as a rule on scored rows."""

    def rule(row: RowFacts) -> str:
        reason = why_dropped(row.quality, config.tau_safe, config.tau_help)
        return f"keep rule: {reason}" if reason else ""

    return rule
