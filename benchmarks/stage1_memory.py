"""Peak memory and speed of Stage I over different numbers of rows: all ids and signatures of 100 K fit into 1 GiB.

Input: numbers of rows. Output: a line for each, and exit code 1 when the last took more than `LIMIT_MIB`. The whole of
Stage I runs as in `data_construction.pipeline`: sources are read, pictures decoded, every call goes through the client
with its limits and its answer cache, rows and rejects are written. Each number has a process of its own; 64 pictures
serve all seeds, and a seed gives two rows for three calls. `--answers` says who answers: `in-process`, the embedded
teacher inside the measured process, in place of the HTTP request; `http`, the teacher in a process of its own (twice as
slow); `none`, no calls at all: rows are made of their seed's question, everything else stays (three times as fast).
    python -m benchmarks.stage1_memory [--rows 10000 100000] [--answers in-process]
"""

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, peak_mib, write_figures
from data_construction.config import DataConfig
from data_construction.pipeline import main as construct
from data_construction.stage_one import MakeDialogue
from data_construction.tasks import StageOneTask, make_dialogue
from miniature.language import ALLOWED, OPENING, ask
from miniature.teacher import MODELS, answer
from miniature.world import draw, random_scene
from safer_steer.dialogue import Dialogue, Seed, Turn
from safer_steer.images import ImageStore
from safer_steer.llm.transport import Transport
from safer_steer.servers import ServiceConfig, start_services
from safer_steer.store import write_jsonl

LIMIT_MIB = 1024
PICTURES = 64
NOWHERE = "http://127.0.0.1:9/v1"  # nothing is sent
TEACHER = ServiceConfig(serves="mini-generator", command=["python", "-m", "miniature.teacher", "--port", "{port}"])


def main(argv: list[str] | None = None) -> int:
    """Runs every number of rows and compares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--answers", choices=[*ANSWERS], default="in-process")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    parser.add_argument("--child", nargs=2, metavar=("FOLDER", "URL"), help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.child:
        ANSWERS[arguments.answers]()
        _measure(Path(arguments.child[0]), arguments.child[1], arguments.rows[0])
        return 0
    found, services = [], {"teacher": TEACHER} if arguments.answers == "http" else {}
    with tempfile.TemporaryDirectory() as root, start_services(services, Path(root, "logs")) as urls:
        for rows in arguments.rows:
            child = ["--child", str(Path(root, str(rows))), urls.get("teacher", NOWHERE)]
            command = [sys.executable, "-m", "benchmarks.stage1_memory", "--rows", str(rows), *child]
            command += ["--answers", arguments.answers]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            found.append(json.loads(output.splitlines()[-1]))
            line = "{rows:>9,} rows: {kept:,} kept, peak {mib:.0f} MiB, {seconds:.0f} s, {rate:.0f} rows/s"
            print(line.format(**found[-1]), flush=True)
    few, many = found[0], found[-1]
    print(f"peak memory of {many['rows']:,} rows: {many['mib']:.0f} MiB (limit {LIMIT_MIB:,})")
    sizes = f"{many['rows']:,} rows", f"{few['rows']:,} rows"
    figures = [
        Figure(f"peak memory, {sizes[0]}", "MiB", many["mib"], "limit", LIMIT_MIB, 1.0, "lower"),
        Figure(f"peak memory, {sizes[0]}", "MiB", many["mib"], sizes[1], few["mib"], None, "lower"),
        Figure(f"speed, {sizes[0]}", "rows/s", many["rate"], sizes[1], few["rate"]),
    ]
    settings = {"rows": arguments.rows, "answers": arguments.answers}
    return write_figures(arguments.out, "stage1_memory", figures, settings=settings, details=found)


def _answer_in_process() -> None:
    """Puts the teacher where the client would send a request."""

    async def complete(transport: Transport, base_url: str, body: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(0)
        message = {"role": "assistant", "content": answer(body)}
        usage = {"prompt_tokens": 1, "completion_tokens": 1}
        return {"choices": [{"index": 0, "finish_reason": "stop", "message": message}], "usage": usage}

    async def models(transport: Transport, base_url: str, model: str) -> list[str]:
        return [*MODELS]

    async def checkpoints(transport: Transport, base_url: str, model: str) -> list[str]:
        return []

    Transport.complete, Transport.models, Transport.checkpoints = complete, models, checkpoints


def _make_without_calls() -> None:
    """Puts rows made of the seed's question in place of the per-row function."""

    async def make(stage: MakeDialogue, task: StageOneTask) -> Dialogue:
        await asyncio.sleep(0)
        return make_dialogue(task, [Turn(user=f"{n}: {task.row.seed.question}") for n in range(task.n_turns)], {})

    _answer_in_process()  # the clients are opened and checked all the same
    MakeDialogue.__call__ = make


ANSWERS = {"in-process": _answer_in_process, "http": lambda: None, "none": _make_without_calls}


def _measure(folder: Path, url: str, rows: int) -> None:
    """One size in this process; prints its numbers as the last line."""
    write_jsonl(folder / "world" / "seeds.jsonl", _seeds(folder / "world", rows // 2))
    config = DataConfig.model_validate(
        {
            "root": str(folder),
            "steps": ["stage1"],
            "kinds": ["benign", "obfuscated"],
            "sources": {"train": {"reader": "jsonl", "path": str(folder / "world" / "seeds.jsonl")}},
            "turns": {kind: {"min": 2, "max": 5} for kind in ("benign", "obfuscated")},
            "quality": {"picture_words": [], "near_duplicates": {"threshold": 0.95, "among": "same_picture"}},
            "roles": {"generator": {"model": "mini-generator", "base_url": url, "temperature": 0.0}},
            "concurrency": 32,
        }
    )
    started = time.monotonic()
    construct(config)
    seconds = time.monotonic() - started
    counts = json.loads((config.folder / "run.stage1.json").read_text())["counts"]
    numbers = {"rows": counts["in"], "kept": counts["kept"], "mib": peak_mib(), "seconds": seconds}
    print(json.dumps(numbers | {"rate": counts["in"] / seconds}))


def _seeds(folder: Path, number: int) -> Iterator[Seed]:
    store, rng = ImageStore(folder), random.Random(0)
    pictures = []
    for index in range(PICTURES):
        scene = random_scene(rng, held_out=False, sealed=index % 2 == 0)
        pictures.append(store.put(draw(scene, rng)))
    intents = [*ALLOWED, *OPENING]
    for index in range(number):
        question = ask(rng.choice(intents), rng)
        yield Seed(id=f"{index:07d}", source="seals", image=rng.choice(pictures), question=question)


if __name__ == "__main__":
    sys.exit(main())
