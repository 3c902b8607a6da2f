"""Stage I over real samples of three public data sets and miniature seeds, all three kinds, in one command.

Input: a folder with `geometry3k/`, `vlguard/` and `vlsbench/` in the data sets' own layouts. Output: kept and rejected
by source and kind, and exit code 1 where they do not add up to the tasks. Pictures that the samples lack are drawn
under the names that their rows give.
    python -m benchmarks.stage1_all_sources [--data ../shared/data] [--seeds 500] [key=value ...]
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from PIL import Image, ImageDraw

from benchmarks.figures import Figure, write_figures
from miniature.seeds import SeedsConfig, make_seeds
from safer_steer.store import read_jsonl, write_jsonl

CONFIG = "configs/data_construction/all_sources.yaml"
KINDS = ("benign", "obfuscated", "red_team")
# file with the rows, the field that names the picture, and the folder that its name starts from
SAMPLES = {"vlguard": ("test.json", "image", "test"), "vlsbench": ("data.json", "image_path", ".")}


def main(argv: list[str] | None = None) -> int:
    """Prepares the samples, runs the command and counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--seeds", type=int, default=500, help="miniature seeds")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="values that replace those of the config")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        world = SeedsConfig(root=name, seed=0, train=arguments.seeds, bench=1, sealed_share=0.75, allowed_share=0.2)
        write_jsonl(root / "world" / "train" / "seeds.jsonl", make_seeds(world, "train"))
        paths = [f"sources.{sample}.path={_with_pictures(sample, arguments.data, root)}" for sample in SAMPLES]
        paths += [f"sources.geometry3k.path={arguments.data / 'geometry3k'}", f"root={name}"]
        subprocess.run(
            [sys.executable, "-m", "data_construction.pipeline", CONFIG, *paths, *arguments.overrides], check=True
        )
        tasks, ended = _report(root / "data")
    figure = Figure("tasks kept or rejected, once each", "tasks", ended, "tasks of all seeds", tasks, 1.0)
    return write_figures(arguments.out, "stage1_all_sources", [figure], settings={"seeds": arguments.seeds})


def _with_pictures(sample: str, data: Path, root: Path) -> Path:
    """A copy of a sample's rows with a drawn picture for each."""
    file, field, start = SAMPLES[sample]
    folder = root / sample
    folder.mkdir()
    shutil.copy(data / sample / file, folder / file)
    for row in json.loads((folder / file).read_text(encoding="utf-8")):
        rng, path = random.Random(row[field]), folder / start / row[field]
        picture = Image.new("RGB", (160, 120), (rng.randrange(256), rng.randrange(256), rng.randrange(256)))
        ImageDraw.Draw(picture).rectangle((20, 20, rng.randrange(40, 140), rng.randrange(40, 100)), fill="white")
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
    return folder


def _report(folder: Path) -> tuple[int, int]:
    """Prints the table; returns the number of tasks, and how many of them ended once."""
    seeds = Counter(row["origin"] for row in read_jsonl(folder / "seeds.jsonl"))
    kept, rejected, reasons = Counter(), Counter(), Counter()
    for row in read_jsonl(folder / "dialogues.jsonl"):
        kept[_source_and_kind(row["meta"]["task"])] += 1
    for row in read_jsonl(folder / "rejects.jsonl"):
        if row["id"].startswith("stage1/"):
            rejected[_source_and_kind(row["id"])] += 1
            reasons[row["reason"]] += 1
    for row in read_jsonl(folder / "duplicates.jsonl"):
        rejected[_source_and_kind(row["task"])] += 1
        reasons[row["reason"]] += 1
    tasks = right = 0
    for source, number in seeds.items():
        for kind in KINDS:
            ends = kept[source, kind], rejected[source, kind]
            tasks += number
            right += max(0, number - abs(sum(ends) - number))
            print(f"{source:<12} {kind:<11} {number:>5} in = {ends[0]:>5} kept + {ends[1]:>5} rejected")
    print(f"reasons: {dict(reasons.most_common())}")
    return tasks, right


def _source_and_kind(task: str) -> tuple[str, str]:
    """From "stage1/SOURCE/SEED/KIND[/STRATEGY]"; a seed's id may hold slashes."""
    parts = task.split("/")
    return parts[1], next(part for part in reversed(parts) if part in KINDS)


if __name__ == "__main__":
    sys.exit(main())
