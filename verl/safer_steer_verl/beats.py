"""Signs of life: what a run last did and when, for the launcher, which ends a run that does nothing any more.

A busy processor is no sign of life: NCCL waits at full speed. So every piece of work touches a file of its kind in
`RUN_FOLDER/log/beats`: a generated turn, a verdict, a micro-batch.
"""

import os
import time
from pathlib import Path

FOLDER = "SAFER_STEER_BEATS"  # environment: the folder, in every process of the run
EVERY_S = 1.0
TURN, VERDICT, MICRO_BATCH = "turn", "verdict", "micro-batch"
_last: dict[str, float] = {}


def beat(kind: str) -> None:
    """Notes that a piece of work of this kind is done; at most once a second, and nothing without a folder."""
    folder = os.environ.get(FOLDER)
    now = time.monotonic()
    if not folder or now - _last.get(kind, -EVERY_S) < EVERY_S:
        return
    _last[kind] = now
    try:
        Path(folder, kind).touch()
    except OSError:  # a full disk is said by what cannot be written next
        return


def install() -> None:
    """Lets verl's engine note every micro-batch, of log-probs and of updates."""
    from verl.workers.engine.fsdp import transformer_impl

    engine = transformer_impl.FSDPEngineWithLMHead
    forward_step = engine.forward_step

    def noted(self, *args, **kwargs):
        result = forward_step(self, *args, **kwargs)
        beat(MICRO_BATCH)
        return result

    engine.forward_step = noted
