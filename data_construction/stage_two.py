"""Stage II (Sec. 4.3): the train dialogues of the SFT pool -> `bootstrapped.jsonl`, each turn answered and scored.

Dialogues that ended early go to `bootstrap_rejects.jsonl` with their reason and the turns they got to. `keep_rule.md`
shows what each pair of thresholds would keep; the assembly applies the configured pair. Resumes by task id, and within
a dialogue by its finished turns: each request depends on the template and the answers so far only, and every answer is
in the cache before the next request is made.
"""

from collections import Counter
from functools import cache, partial

from data_construction.assemble.config import Split
from data_construction.assemble.facts import row_facts
from data_construction.assemble.select import Pools, select
from data_construction.bootstrap.keep import keep_rule_markdown
from data_construction.bootstrap.rollout import RedBlueLoop
from data_construction.calls import Caller
from data_construction.config import DataConfig
from data_construction.prompts import STAGE_TWO, blue_guidelines
from data_construction.score import candidate_rules
from data_construction.seeds import ingested_seeds
from data_construction.stage_one import DIALOGUES
from data_construction.step import RowTask, require_finished, require_some, step
from safer_steer.dialogue import stable_hash
from safer_steer.stage import Result, Stage
from safer_steer.store import read_jsonl, write_atomic

SCORED, REJECTS, KEEP_RULE = "bootstrapped.jsonl", "bootstrap_rejects.jsonl", "keep_rule.md"


def stage_two(config: DataConfig) -> Stage:
    """Bootstraps the dialogues.

    Raises:
        UserError: Stage I is not finished, or the guidelines or the policy are not there.
    """
    require_finished(config.folder, "stage1")
    bootstrap = config.bootstrap
    guidelines = blue_guidelines(bootstrap.guidelines, config.policy)
    return step(
        config,
        "stage2",
        partial(red_blue_loop, guidelines),
        cache(partial(bootstrap_tasks, config)),  # chosen once, not at every pass
        # What only chooses the tasks may change, and so may the thresholds, which only the assembly applies.
        facts={
            "assistant_tags": bootstrap.answer_format.tags,
            "quality": config.quality.model_dump(include={"min_turn_words", "max_turn_words", "refusal_role"}),
        },
        grows=True,
        prompts=STAGE_TWO,
        more_prompts={"guidelines": stable_hash(guidelines)},
        after=partial(_finish, config),
        kept=SCORED,
        rejects=REJECTS,
    )


def red_blue_loop(guidelines: str, config: DataConfig, caller: Caller) -> RedBlueLoop:
    """The work on one dialogue."""
    return RedBlueLoop(caller, config.bootstrap.answer_format, config.quality, guidelines)


def bootstrap_tasks(config: DataConfig) -> list[RowTask]:
    """The train dialogues of the SFT pool, as many as configured, with the lengths that STEER-SFT is to have."""
    pools = Pools.of(config, ingested_seeds(config.folder))
    rows = (row for row in row_facts(config.folder / DIALOGUES) if pools.pool(row) == "sft")
    chosen = select(rows, _wanted(config), config.seed, "bootstrap", candidate_rules(config, "sft"))
    return [RowTask("stage2", row.id, row.read) for row in chosen.rows]


def _wanted(config: DataConfig) -> Split:
    sft, number = config.assemble.sft, config.bootstrap.candidates
    return Split(size=number, mix=sft.mix, mean_turns=None if number is None else sft.mean_turns)


def _finish(config: DataConfig, result: Result) -> dict[str, int]:
    require_some("Stage II", result.counts, REJECTS, "change the guidelines or the endpoints")
    print(write_keep_rule(config))
    relocked = sum(row["meta"]["relocked"] for row in result.kept.rows())
    return result.counts.as_dict() | {"turns relocked": relocked}


def write_keep_rule(config: DataConfig) -> str:
    """Writes `keep_rule.md` from the scored dialogues; returns its text."""
    scored = [(row.kind, row.measures) for row in row_facts(config.folder / SCORED)]
    ended = Counter(row["reason"] for row in read_jsonl(config.folder / REJECTS))
    text = keep_rule_markdown(scored, config.bootstrap.tau_safe, config.bootstrap.tau_help, dict(ended.most_common()))
    write_atomic(config.folder / KEEP_RULE, text)
    return text
