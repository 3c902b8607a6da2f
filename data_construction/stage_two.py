"""Stage II (Sec. 4.3): the train dialogues of the SFT pool -> `bootstrapped.jsonl`, each turn answered and scored.

Dialogues that ended early go to `bootstrap_rejects.jsonl` with their reason and the turns they got to. `keep_rule.md`
shows what each pair of thresholds would keep; the assembly applies the configured pair. Resumes by task id, and within
a dialogue by its finished turns.
"""

from collections import Counter
from functools import partial
from pathlib import Path

from data_construction import fingerprint, stage_one
from data_construction.assemble.facts import row_facts
from data_construction.assemble.select import Pools, select
from data_construction.bootstrap.keep import keep_rule_markdown
from data_construction.bootstrap.rollout import REWRITE, TURN_SCORES, BootstrapTask, RedBlueLoop
from data_construction.calls import Caller
from data_construction.config import DataConfig, Split
from data_construction.resumable import run_tasks
from data_construction.seeds import ingested_seeds
from safer_steer.dialogue import stable_hash
from safer_steer.errors import UserError
from safer_steer.llm import LLMClient
from safer_steer.runs import Run, is_finished
from safer_steer.store import read_jsonl, write_atomic

RECORD = "run.stage2.json"
SCORED, REJECTS, KEEP_RULE = "bootstrapped.jsonl", "bootstrap_rejects.jsonl", "keep_rule.md"


def run_stage_two(config: DataConfig) -> None:
    """Bootstraps the dialogues; does nothing when an earlier run finished.

    Raises:
        UserError: Stage I is not finished, an endpoint does not answer, or every dialogue was lost.
    """
    folder = config.folder
    require_finished(folder, stage_one.RECORD, "stage1")
    guidelines = _read_guidelines(config)
    prompts = {"rewrite": REWRITE.hash, "turn_scores": TURN_SCORES.hash, "guidelines": stable_hash(guidelines)}
    inputs = {"dialogues": folder / "dialogues.jsonl"}
    facts = fingerprint.facts(config, "stage2")
    with Run.open(folder, facts, stage="stage 2", inputs=inputs, prompts=prompts, file=RECORD) as run:
        if run.finished:
            run.say_finished()
            return
        counts = run_tasks(
            config,
            "stage2",
            run,
            bootstrap_tasks(config),
            partial(red_blue_loop, guidelines),
            kept=SCORED,
            rejects=REJECTS,
        )
        if counts.kept == 0:
            reasons = ", ".join(f"{number} {reason}" for reason, number in counts.reasons.items()) or "there were none"
            raise UserError(
                f"Stage II: none of {counts.tasks} dialogues got to its end ({reasons}); see {REJECTS}, then change "
                "the guidelines or the endpoints"
            )
        print(write_keep_rule(config))
        run.finish(counts.as_dict())


def red_blue_loop(guidelines: str, config: DataConfig, clients: dict[str, LLMClient]) -> RedBlueLoop:
    """The work on one dialogue."""
    return RedBlueLoop(Caller(clients, config.folder, config.seed), config.bootstrap, guidelines)


def bootstrap_tasks(config: DataConfig) -> list[BootstrapTask]:
    """The train dialogues of the SFT pool, as many as configured, in hash order."""
    pools = Pools.of(config, ingested_seeds(config.folder))
    rows = (row for row in row_facts(config.folder / "dialogues.jsonl") if pools.pool(row) == "sft")
    wanted = Split(size=config.bootstrap.candidates, mix=config.assemble.sft.mix)
    return [BootstrapTask(row.id, row.read) for row in select(rows, wanted, config.seed, "bootstrap").rows]


def write_keep_rule(config: DataConfig) -> str:
    """Writes `keep_rule.md` from the scored dialogues; returns its text."""
    scored = [(row.kind, row.quality) for row in row_facts(config.folder / SCORED)]
    ended = Counter(row["reason"] for row in read_jsonl(config.folder / REJECTS))
    text = keep_rule_markdown(scored, config.bootstrap.tau_safe, config.bootstrap.tau_help, dict(ended.most_common()))
    write_atomic(config.folder / KEEP_RULE, text)
    return text


def _read_guidelines(config: DataConfig) -> str:
    path = Path(config.bootstrap.guidelines)
    if not path.is_file():
        raise UserError(f"guidelines not found: {path}; correct bootstrap.guidelines")
    return path.read_text(encoding="utf-8")


def require_finished(folder: Path, record: str, step: str) -> None:
    """Checks that an earlier step went to its end.

    Raises:
        UserError: it did not.
    """
    if not is_finished(folder / record):
        raise UserError(f"{folder}: step {step} is not finished; put it into steps and run the same command again")
