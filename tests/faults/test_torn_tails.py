"""A last line torn at every byte: every file that a run resumes from is read as if the torn row had not been begun."""

import asyncio
import json
from dataclasses import dataclass
from types import SimpleNamespace

from safer_steer.dialogue import Dialogue, Turn
from safer_steer.rows import Reject, process_rows
from safer_steer.store import JsonlStore, write_jsonl
from training.grpo.run import new_rows
from training.sft.checkpoints import last_checkpoint, rewind_log

TEXTS = ("one", "zwei é", "three \u2028 line", "four \U0001f600")


@dataclass(frozen=True)
class Numbered:
    """A task."""

    task_id: str


async def work(task):
    number = int(task.task_id)
    if number % 2:
        return Reject("odd", TEXTS[number])
    row = {"id": f"d{number}", "source": "t", "kind": "benign", "strategy": None, "images": []}
    return Dialogue(**row, turns=[Turn(user=TEXTS[number])], meta={"task": task.task_id})


def process(folder):
    """Runs the shared row loop over all tasks; returns which ones it worked on."""
    worked = []

    async def noted(task):
        worked.append(task.task_id)
        return await work(task)

    tasks = [Numbered(str(number)) for number in range(len(TEXTS))]
    with JsonlStore(folder / "kept.jsonl") as kept, JsonlStore(folder / "rejects.jsonl") as rejects:
        counts = asyncio.run(process_rows(tasks, noted, kept=kept, rejects=rejects, label="t", concurrency=1))
    assert (counts.kept, counts.rejected) == (2, 2)
    return worked


def test_rows_of_any_stage(tmp_path):
    process(tmp_path)
    files = [tmp_path / "kept.jsonl", tmp_path / "rejects.jsonl"]
    whole = [path.read_bytes() for path in files]
    for path, data in zip(files, whole, strict=True):
        for cut in range(len(data)):
            path.write_bytes(data[:cut])
            worked = process(tmp_path)
            lost = 2 - data[:cut].count(b"\n")
            assert len(worked) == lost, f"{path.name} cut at byte {cut}: just the lost rows are made again"
            assert [file.read_bytes() for file in files] == whole


def test_the_log_and_the_checkpoint_of_sft(tmp_path):
    rows = [{"step": step, "loss": 1.5} for step in (1, 2, 3)]
    write_jsonl(tmp_path / "log.jsonl", rows)
    data = (tmp_path / "log.jsonl").read_bytes()
    for cut in range(len(data) + 1):
        (tmp_path / "log.jsonl").write_bytes(data[:cut])
        kept = rows[: min(2, data[:cut].count(b"\n"))]
        assert rewind_log(tmp_path / "log.jsonl", 2) == (kept[-1] if kept else {})
        assert (tmp_path / "log.jsonl").read_text() == "".join(json.dumps(row) + "\n" for row in kept)
    state = json.dumps({"global_step": 12, "log_history": [{"loss": 1.5}]}).encode()
    for name, cut in (("checkpoint-9", len(state)), *((f"checkpoint-{10 + n}", n) for n in range(len(state)))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "trainer_state.json").write_bytes(state[:cut])
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-9"
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-9"]


def test_the_metrics_of_grpo_while_a_step_is_written(tmp_path):
    rows = [{"step": step, "tutor/return_mean": 0.5} for step in (1, 2, 3)]
    write_jsonl(tmp_path / "metrics.jsonl", rows)
    data = (tmp_path / "metrics.jsonl").read_bytes()
    ended = SimpleNamespace(poll=lambda: 0)
    for cut in range(len(data) + 1):
        (tmp_path / "metrics.jsonl").write_bytes(data[:cut])
        seen = list(new_rows(tmp_path / "metrics.jsonl", 1, ended, None))
        assert seen == rows[1 : max(1, data[:cut].count(b"\n"))]
