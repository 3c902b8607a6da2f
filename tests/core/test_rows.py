"""process_rows: every task kept or rejected, resumed by task id, stopped when no model answers."""

import asyncio
from dataclasses import dataclass

import pytest

from safer_steer.dialogue import Dialogue, Turn
from safer_steer.errors import ImageError, RunAborted
from safer_steer.rows import Reject, count_results, process_rows, process_twice
from safer_steer.store import JsonlStore


@dataclass(frozen=True)
class Job:
    task_id: str
    text: str


def row(job: Job) -> Dialogue:
    return Dialogue(
        id=f"d-{job.text}",
        source="s",
        kind="benign",
        strategy=None,
        images=[],
        turns=[Turn(user=job.text)],
        meta={"task": job.task_id},
    )


def run(tmp_path, jobs, work):
    with JsonlStore(tmp_path / "kept.jsonl") as kept, JsonlStore(tmp_path / "rejects.jsonl") as rejects:
        return asyncio.run(process_rows(jobs, work, kept=kept, rejects=rejects, label="demo", concurrency=3))


def test_one_bad_row_changes_nothing_for_the_others(tmp_path):
    async def work(job):
        if job.text == "bad":
            return Reject("too short", "2 words")
        if job.text == "broken":
            raise ImageError("picture not found: x.png")
        return row(job)

    jobs = [Job(str(i), text) for i, text in enumerate(["a", "bad", "b", "broken", "a"])]
    counts = run(tmp_path, jobs, work)
    assert (counts.tasks, counts.kept, counts.rejected) == (5, 2, 3)
    assert counts.reasons == {"too short": 1, "unusable picture": 1, "duplicate": 1}


def test_tasks_are_a_stream_taken_as_places_become_free(tmp_path):
    taken = done = furthest = 0

    def stream():
        nonlocal taken
        for number in range(50):
            taken += 1
            yield Job(str(number), f"t{number}")

    async def work(job):
        nonlocal done, furthest
        await asyncio.sleep(0)
        furthest = max(furthest, taken - done)
        done += 1
        return row(job) if job.text != "t7" else Reject("seven")

    counts = run(tmp_path, stream(), work)
    assert (counts.tasks, counts.kept, counts.rejected, counts.reasons) == (50, 49, 1, {"seven": 1})
    assert furthest <= 3  # run's concurrency
    assert run(tmp_path, stream(), work) == counts
    with JsonlStore(tmp_path / "kept.jsonl") as kept, JsonlStore(tmp_path / "rejects.jsonl") as rejects:
        assert count_results(stream(), kept, rejects) == counts


def test_too_many_transport_failures_stop_the_run(tmp_path):
    async def work(job):
        return Reject("no answer", "503", outcome="transport")

    jobs = [Job(str(i), f"t{i}") for i in range(100)]
    with pytest.raises(RunAborted, match="run the same command again"):
        run(tmp_path, jobs, work)
    with JsonlStore(tmp_path / "kept.jsonl") as kept, JsonlStore(tmp_path / "rejects.jsonl") as rejects:
        assert count_results(jobs, kept, rejects).rejected < 100


def test_rows_lost_for_good_do_not_stop_the_pass_that_meets_them_alone(tmp_path):
    """25 of 500 are 5 %; the second pass, and a run started again, meet nothing else."""
    jobs = [Job(str(number), f"t{number}") for number in range(500)]

    async def work(job):
        return Reject("transport", "down", "transport") if int(job.task_id) % 20 == 7 else row(job)

    for _ in range(2):
        with JsonlStore(tmp_path / "kept.jsonl") as kept, JsonlStore(tmp_path / "rejects.jsonl") as rejects:
            options = {"kept": kept, "rejects": rejects, "label": "demo", "concurrency": 3, "max_transport_rate": 0.2}
            counts = asyncio.run(process_twice(lambda: jobs, work, **options))
        assert (counts.kept, counts.rejected) == (475, 25)
