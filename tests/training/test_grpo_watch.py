"""A GRPO run without a sign of life is ended, with who is silent; who died is said with the memory and the key."""

import json
import socket
from dataclasses import asdict
from types import SimpleNamespace

import pytest

from safer_steer.deaths import MemoryLog
from safer_steer.errors import UserError
from safer_steer_verl.beats import EVERY_S, FOLDER, MICRO_BATCH, TURN, VERDICT, beat
from safer_steer_verl.liveness import Death
from training.grpo import failure, watch


@pytest.fixture
def clock(monkeypatch):
    """Time that passes only when it is told to."""
    now = SimpleNamespace(time=0.0)
    monkeypatch.setattr(watch.time, "monotonic", lambda: now.time)
    return now


def passes(stall: watch.StallWatch, clock: SimpleNamespace, seconds: float) -> None:
    for _ in range(int(seconds / 5)):
        clock.time += 5
        stall.look()


@pytest.mark.parametrize(
    ("last", "said"),
    [
        (None, "it was still starting"),
        (TURN, "the tutor is silent"),
        (VERDICT, "the rollout engine is silent"),
        (MICRO_BATCH, "a trainer worker is silent, or the transfer of the weights"),
    ],
)
def test_a_run_without_a_sign_of_life_is_ended_with_who_is_silent(tmp_path, clock, monkeypatch, last, said):
    stall = watch.StallWatch(tmp_path, 60)
    monkeypatch.setenv(FOLDER, str(stall.beats))
    passes(stall, clock, 55)
    if last:
        clock.time += EVERY_S
        beat(last)
    else:
        (tmp_path / "log" / "verl.log").write_text("loading")
    passes(stall, clock, 60)
    for name in ("metrics.jsonl", "checkpoints/global_step_1/model.pt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
        passes(stall, clock, 60)
    if last:
        (tmp_path / "log" / "verl.log").write_text("pending: 0, running: 4")  # verl says so every minute, for ever
    with pytest.raises(UserError, match=rf"nothing has happened for 60 s \(safer_steer.stall_s\).*{said}"):
        passes(stall, clock, 10)


def test_time_in_which_the_launcher_itself_slept_does_not_count(tmp_path, clock):
    stall = watch.StallWatch(tmp_path, 60)
    for _ in range(3):
        clock.time += 10_000
        stall.look()


def test_who_died_is_said_with_the_memory_and_what_to_change(tmp_path):
    log, reason = tmp_path / "verl.log", tmp_path / "failure.json"
    log.write_text("ray.exceptions.ActorDiedError: The actor died unexpectedly before finishing this task.")
    here = socket.gethostbyname("localhost")
    engine, store = Death("rollout engine", "EngineCore", 12, here, -9), Death("worker", "Storage", 13, here)
    reason.write_text(json.dumps({"kind": "died", "deaths": [asdict(engine), asdict(store)]}))
    said = failure.failure_message(1, reason, log, MemoryLog())
    assert said.startswith(f"the rollout engine (EngineCore, process 12 on {here}): was killed (signal 9), mostly")
    for part in (
        "GiB of this machine's memory",
        "lower actor_rollout_ref.rollout.max_num_seqs",
        "gone with it: worker 13",
    ):
        assert part in said
    assert "died unexpectedly" not in said
    far = Death("trainer worker", "WorkerDict", 14, "203.0.113.9")
    reason.write_text(json.dumps({"kind": "died", "deaths": [asdict(far)]}))
    said = failure.failure_message(1, reason, log, MemoryLog())
    assert "process 14 on 203.0.113.9): vanished without a word" in said
    assert "that machine's memory was is not known" in said
    assert "ppo_micro_batch_size_per_gpu" in said
    reason.unlink()
    assert "verl's first process was killed (signal 9)" in failure.failure_message(-9, reason, log, MemoryLog())
