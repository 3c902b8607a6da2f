"""process_rows: every task kept or rejected, resumed by task id, stopped when no model answers."""

import asyncio
from dataclasses import dataclass

import pytest

from safer_steer.dialogue import Dialogue, Turn
from safer_steer.errors import ImageError, RunAborted
from safer_steer.rows import Reject, check_transport, count_results, process_rows, process_twice
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


def test_resume_does_only_what_is_missing(tmp_path):
    seen = []

    async def work(job):
        seen.append(job.task_id)
        if len(seen) == 4:
            raise RuntimeError("killed")
        return row(job)

    jobs = [Job(str(i), f"t{i}") for i in range(8)]
    with pytest.raises(RuntimeError, match="killed"):
        run(tmp_path, jobs, work)
    counts = run(tmp_path, jobs, work)
    assert counts.kept == 8
    assert sorted(set(seen)) == [str(i) for i in range(8)]
    assert run(tmp_path, jobs, work) == counts
    ids = (tmp_path / "kept.jsonl").read_text().splitlines()
    assert len(ids) == len(set(ids)) == 8


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


def test_progress_of_a_stream_of_unknown_length(tmp_path, capsys):
    async def work(job):
        return row(job)

    jobs = [Job(str(i), f"t{i}") for i in range(4)]
    run(tmp_path, iter(jobs[:1]), work)
    assert "demo: 1, " in capsys.readouterr().err
    run(tmp_path, jobs, work)
    assert "demo: 4/4, " in capsys.readouterr().err


def test_transport_failures_are_tried_again_on_resume(tmp_path):
    up = False

    async def work(job):
        return row(job) if up or job.text != "t1" else Reject("no answer", outcome="transport")

    jobs = [Job(str(i), f"t{i}") for i in range(3)]
    assert run(tmp_path, jobs, work).reasons == {"no answer": 1}
    up = True
    counts = run(tmp_path, jobs, work)
    assert (counts.kept, counts.rejected) == (3, 0)


def test_too_many_transport_failures_stop_the_run(tmp_path):
    async def work(job):
        return Reject("no answer", "503", outcome="transport")

    jobs = [Job(str(i), f"t{i}") for i in range(100)]
    with pytest.raises(RunAborted, match="run the same command again"):
        run(tmp_path, jobs, work)
    with JsonlStore(tmp_path / "kept.jsonl") as kept, JsonlStore(tmp_path / "rejects.jsonl") as rejects:
        assert count_results(jobs, kept, rejects).rejected < 100


def test_a_task_that_reached_no_model_is_tried_once_more_from_a_stream(tmp_path):
    seen = []

    async def work(job):
        seen.append(job.text)
        return row(job) if job.text != "b" or seen.count("b") > 1 else Reject("gone", "no answer", "transport")

    with JsonlStore(tmp_path / "kept.jsonl") as kept, JsonlStore(tmp_path / "rejects.jsonl") as rejects:
        stores = {"kept": kept, "rejects": rejects, "label": "demo", "concurrency": 2, "max_transport_rate": 0.0}
        counts = asyncio.run(process_twice(lambda: (Job(text, text) for text in "abc"), work, **stores))
        check_transport(rejects, counts.tasks, 0.0, "demo")
    assert sorted(seen) == ["a", "b", "b", "c"]
    assert (counts.tasks, counts.kept, counts.rejected) == (3, 3, 0)


def test_few_tasks_lost_for_good_stop_the_step_and_are_not_recorded_as_its_end(tmp_path):
    async def work(job):
        return row(job) if job.text == "a" else Reject("gone", "no answer", "transport")

    with JsonlStore(tmp_path / "kept.jsonl") as kept, JsonlStore(tmp_path / "rejects.jsonl") as rejects:
        stores = {"kept": kept, "rejects": rejects, "label": "demo", "concurrency": 2, "max_transport_rate": 0.2}
        counts = asyncio.run(process_twice(lambda: [Job(text, text) for text in "ab"], work, **stores))
        assert (counts.kept, counts.reasons) == (1, {"gone": 1})
        with pytest.raises(RunAborted, match=r"1 of 2 tasks .* each twice \(limit 20%.* the last: no answer"):
            check_transport(rejects, counts.tasks, 0.2, "demo")
        check_transport(rejects, counts.tasks, 0.5, "demo")


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
