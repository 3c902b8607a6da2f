"""Stage I killed with `kill -9` at random moments, each time resumed, against one run that nobody interrupts.

Input: a number of kills. Output: what differs (exit code 1), or nothing. The run is the real command in a process group
of its own, all three kinds over miniature seeds; the group is killed once a random number of rows is on disk and a
random moment later. Compared are all files of rows, byte for byte after sorting by id, and the pictures.
    python -m benchmarks.kill_stage1 [--kills 20] [--seeds 100] [--random-seed 0]
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from benchmarks.figures import Figure, write_figures
from miniature.seeds import SeedsConfig, make_seeds
from safer_steer.servers import ServiceConfig, start_services
from safer_steer.store import write_jsonl

FILES = ("seeds.jsonl", "candidates.jsonl", "rejects.jsonl")  # that grow while the run continues
COMPARED = (*FILES, "dialogues.jsonl", "duplicates.jsonl", "attack_failures.jsonl")
LAST_KILL = 0.9  # of the rows: later ones would find the run finished
PAUSE_S = 0.2  # the longest random wait between the number of rows and the kill
POLL_S = 0.002
TEACHER = ServiceConfig(serves="mini-generator", command=["python", "-m", "miniature.teacher", "--port", "{port}"])


def main(argv: list[str] | None = None) -> int:
    """Runs both and compares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=100, help="miniature seeds; each becomes three rows or rejects")
    parser.add_argument("--random-seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    arguments = parser.parse_args(argv)
    rng = random.Random(arguments.random_seed)
    with tempfile.TemporaryDirectory() as name, start_services({"teacher": TEACHER}, Path(name, "logs")) as urls:
        world = SeedsConfig(root=name, seed=0, train=arguments.seeds, bench=1, sealed_share=0.75, allowed_share=0.2)
        write_jsonl(Path(name, "world", "train", "seeds.jsonl"), make_seeds(world, "train"))
        whole, killed = Path(name, "whole"), Path(name, "killed")
        _finish(_start(whole, urls["teacher"]))
        rows = _rows(whole / "data")
        moments = sorted(rng.sample(range(int(rows * LAST_KILL)), arguments.kills))
        for attempt, moment in enumerate(moments, start=1):
            reached = _kill_at(_start(killed, urls["teacher"]), killed / "data", attempt, moment, rng)
            print(f"kill {attempt}: at {reached} of {rows} rows", flush=True)
        _finish(_start(killed, urls["teacher"]))
        different = differences(whole / "data", killed / "data")
    counts = f"{arguments.kills} kills, {rows} rows in {', '.join(FILES)}"
    print(f"{counts}: {'; '.join(different) or 'equal to the uninterrupted run, byte for byte after sorting by id'}")
    equal, all_files = len(COMPARED) + 1 - len({item.partition(":")[0] for item in different}), len(COMPARED) + 1
    name = f"files equal after {arguments.kills} kills"
    figure = Figure(name, "files", equal, "one run that nobody interrupts", all_files, 1.0)
    settings = {"kills": arguments.kills, "seeds": arguments.seeds, "rows": rows}
    return write_figures(arguments.out, "kill_stage1", [figure], settings=settings, details=different)


def stage_one_config(root: Path, url: str, seeds: Path, most_turns: int = 5) -> dict[str, Any]:
    """Stage I over miniature seeds; every role is the embedded teacher at `url`."""
    role = {"base_url": url, "temperature": 0.0}
    return {
        "root": str(root),
        "steps": ["stage1"],
        "sources": {"train": {"reader": "jsonl", "path": str(seeds)}},
        "turns": {kind: {"min": 2, "max": most_turns} for kind in ("benign", "obfuscated", "red_team")},
        "red_team": {"strategies_per_seed": 1},
        "quality": {"picture_words": [], "near_duplicates": {"among": "same_picture"}},
        # The blue expert leaks now and then, so some attacks on it succeed.
        "roles": {
            "generator": role | {"model": "mini-generator"},
            "target": role | {"model": "mini-blue"},
            "evaluator": role | {"model": "mini-evaluator"},
        },
        "concurrency": 8,
    }


def _start(root: Path, url: str) -> subprocess.Popen:
    """The command on `root`, in a process group of its own."""
    config = stage_one_config(root, url, root.parent / "world" / "train" / "seeds.jsonl")
    root.mkdir(exist_ok=True)
    path = root / "config.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    command = [sys.executable, "-m", "data_construction.pipeline", str(path)]
    return subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def _finish(process: subprocess.Popen) -> None:
    _, errors = process.communicate()
    if process.returncode:
        raise SystemExit(f"the run ended with code {process.returncode}: {errors[-2000:]}")


def _kill_at(process: subprocess.Popen, folder: Path, attempt: int, moment: int, rng: random.Random) -> int:
    """Kills the run's process group when the run has begun and `moment` rows are there; returns how many there were."""
    while _attempts(folder) < attempt or _rows(folder) < moment:
        if process.poll() is not None:
            raise SystemExit(f"the run ended before kill {attempt}: {process.communicate()[1][-2000:]}")
        time.sleep(POLL_S)
    time.sleep(rng.uniform(0, PAUSE_S))
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    if process.returncode != -signal.SIGKILL:
        raise SystemExit(f"the run had ended before kill {attempt}; take more --seeds")
    return _rows(folder)


def _attempts(folder: Path) -> int:
    record = folder / "run.stage1.json"
    return json.loads(record.read_text(encoding="utf-8"))["attempts"] if record.is_file() else 0


def _rows(folder: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for name in FILES if (path := folder / name).is_file())


def differences(one: Path, other: Path) -> list[str]:
    """What differs between two finished data folders, a line for each file."""
    found = []
    for name in COMPARED:
        if (first := _sorted_lines(one / name)) != (second := _sorted_lines(other / name)):
            found.append(f"{name}: {len(first)} and {len(second)} rows, {len({*first} ^ {*second})} in one only")
        if len({json.loads(line)["id"] for line in second}) < len(second):
            found.append(f"{name}: an id is there twice")
    # A picture whose writing was cut off stays as a temporary file next to the whole ones.
    pictures = [{path.name: path.read_bytes() for path in (folder / "images").glob("*.png")} for folder in (one, other)]
    return found if pictures[0] == pictures[1] else [*found, "images differ"]


def _sorted_lines(path: Path) -> list[bytes]:
    return sorted(path.read_bytes().splitlines(keepends=True), key=lambda line: json.loads(line)["id"])


if __name__ == "__main__":
    sys.exit(main())
