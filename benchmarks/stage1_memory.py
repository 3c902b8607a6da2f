"""Peak memory and speed of Stage I over different numbers of rows: memory must not grow with the rows.

Input: numbers of rows. Output: a table, and exit code 1 when the largest run took more than 1.2 times the memory of the
smallest. The whole of Stage I runs, as `data_construction.run` runs it: sources are read, pictures decoded, two calls
for a seed's probe and first row and one for its second answered over HTTP by the embedded teacher in a process of its
own, rows, rejects and the answer cache written. Each size runs in its own process; 64 pictures serve all seeds.
    python -m benchmarks.stage1_memory [--rows 10000 100000]
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from data_construction.config import DataConfig
from data_construction.stage_one import run_stage_one
from miniature.language import ALLOWED, OPENING, ask
from miniature.world import draw, random_scene
from safer_steer.dialogue import Seed
from safer_steer.images import ImageStore
from safer_steer.servers import ServiceConfig, start_services
from safer_steer.store import write_jsonl

LIMIT = 1.2
PICTURES = 64
TEACHER = ServiceConfig(
    serves="mini-generator", command=["python", "-m", "miniature.teacher", "--port", "{port}"], startup_s=300
)


def main() -> int:
    """Runs every size and compares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--child", nargs=2, metavar=("FOLDER", "URL"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        _measure(Path(arguments.child[0]), arguments.child[1], arguments.rows[0])
        return 0
    found = []
    with tempfile.TemporaryDirectory() as root, start_services({"teacher": TEACHER}, Path(root, "logs")) as urls:
        for rows in arguments.rows:
            folder = Path(root, str(rows))
            command = [sys.executable, "-m", "benchmarks.stage1_memory", "--rows", str(rows)]
            output = subprocess.run(
                [*command, "--child", str(folder), urls["teacher"]], check=True, stdout=subprocess.PIPE, text=True
            ).stdout
            found.append(json.loads(output.splitlines()[-1]))
            print(
                "{rows:>9,} rows: {kept:,} kept, peak {mib:.0f} MiB, {seconds:.0f} s, {rate:.0f} rows/s".format(
                    **found[-1]
                )
            )
    ratio = found[-1]["mib"] / found[0]["mib"]
    print(f"peak memory, largest to smallest: {ratio:.2f} (limit {LIMIT})")
    return int(ratio > LIMIT)


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
            "roles": {"generator": {"model": "mini-generator", "base_url": url, "temperature": 0.0}},
            "concurrency": 32,
        }
    )
    started = time.monotonic()
    run_stage_one(config)
    seconds = time.monotonic() - started
    counts = json.loads((config.folder / "run.stage1.json").read_text())["counts"]
    numbers = {"rows": counts["in"], "kept": counts["kept"], "mib": _peak_mib(), "seconds": seconds}
    print(json.dumps(numbers | {"rate": counts["in"] / seconds}))


def _peak_mib() -> float:
    """This process's largest resident size so far; `getrusage` would count the parent's in (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


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
