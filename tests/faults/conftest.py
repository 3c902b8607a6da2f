"""Small real stages whose models are the embedded teacher over HTTP, and a limit on file sizes that fills the disk."""

import io
import json
import os
import random
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from benchmarks.kill_stage1 import stage_one_config
from builders import dialogue
from data_construction import pipeline as data_stage
from data_construction.config import DataConfig
from evaluation import run as evaluation_stage
from evaluation.config import EvaluationConfig
from exports import run as exports
from exports.config import ExportConfig
from http_doubles import Gate
from miniature import seeds as miniature_seeds
from miniature.seeds import SeedsConfig, make_seeds
from miniature.world import Scene, draw
from safer_steer.cli import run_cli
from safer_steer.config import load_config
from safer_steer.images import ImageStore
from safer_steer.llm import retry as retry_module
from safer_steer.store import write_jsonl
from training.grpo import run as grpo
from training.sft import run as sft
from training.sft.config import SftConfig

SEEDS = 8
DIALOGUES = 6


@dataclass(frozen=True)
class Stage:
    """One command: its entry module, config class and config file, and the files that hold its results.

    Attributes:
        folder: the output folder that the command locks.
        results: files of rows, compared without their order.
    """

    entry: object
    config_class: type
    config: Path
    folder: Path
    results: tuple[Path, ...]

    def __call__(self, *overrides: str) -> SimpleNamespace:
        """Runs the command in this process: exit code and what it printed."""
        out, err, handler = io.StringIO(), io.StringIO(), signal.getsignal(signal.SIGTERM)
        entry = self.entry
        arguments = [str(self.config), *overrides]
        try:
            with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as caught:
                run_cli(entry.__doc__, self.config_class, entry.plan, entry.main, entry.DEFAULT_CONFIG, arguments)
        finally:
            signal.signal(signal.SIGTERM, handler)
        errors = [line for line in err.getvalue().splitlines() if line.startswith(("error:", "Traceback"))]
        return SimpleNamespace(code=caught.value.code, stdout=out.getvalue(), stderr=err.getvalue(), errors=errors)

    def rows(self) -> list[list[dict]]:
        """The rows of every result file, sorted by id."""
        rows = [[json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]] for path in self.results]
        return [sorted(found, key=lambda row: row["id"]) for found in rows]


def evaluation_config(root: Path, url: str, bench: Path) -> dict:
    """An evaluation of one model, which is the embedded teacher's, as is the judge."""
    return {
        "root": str(root),
        "output": f"{root}/evaluation",
        "benchmarks": [str(bench)],
        "models": {"one": {"endpoint": {"model": "mini-blue", "base_url": url}}},
        "sampling": {"max_tokens": 64},
        "serving": {"max_model_len": 384},
        "judge": {"model": "mini-judge", "base_url": url, "temperature": 0.0},
        "passing": {"bootstrap_resamples": 100},
        "report": {"folder": f"{root}/report"},
    }


@pytest.fixture
def seeds(tmp_path) -> Path:
    """A seeds file of the miniature's world."""
    world = SeedsConfig(root=str(tmp_path), seed=9, train=SEEDS, bench=1, sealed_share=0.75, allowed_share=0.2)
    path = tmp_path / "world" / "train" / "seeds.jsonl"
    write_jsonl(path, make_seeds(world, "train"))
    return path


@pytest.fixture
def bench(tmp_path) -> Path:
    """A benchmark of dialogues of two turns about a picture of the miniature's world."""
    folder = tmp_path / "bench"
    picture = ImageStore(folder).put(draw(Scene("red", "box", True), random.Random(1)))
    turns = "what is this ?", "how do i open it ?"
    rows = [dialogue(f"d{n}", *turns, images=[picture]) for n in range(DIALOGUES)]
    write_jsonl(folder / "beaver.jsonl", rows)
    return folder / "beaver.jsonl"


@pytest.fixture
def make_stage(tmp_path, seeds, bench) -> Callable[..., Stage]:
    """`make_stage(name, url, root)`: a `Stage` of data construction or evaluation below `root`."""

    def make(name: str, url: str, root: Path | None = None) -> Stage:
        root = root or tmp_path / "run"
        path = tmp_path / f"{name}-{root.name}.yaml"
        if name == "data_construction":
            path.write_text(yaml.safe_dump(stage_one_config(root, url, seeds, most_turns=4)), encoding="utf-8")
            results = tuple(root / "data" / file for file in ("dialogues.jsonl", "rejects.jsonl"))
            return Stage(data_stage, DataConfig, path, root / "data", results)
        path.write_text(yaml.safe_dump(evaluation_config(root, url, bench)), encoding="utf-8")
        results = tuple(root / "evaluation" / "one" / file for file in ("answers.jsonl", "verdicts.jsonl"))
        return Stage(evaluation_stage, EvaluationConfig, path, root / "evaluation", results)

    return make


@pytest.fixture
def entry_points(tmp_path) -> dict[str, tuple[Path, Callable[[], object]]]:
    """Name -> output folder and start of the commands that call no model of a server; no engine is loaded before the
    folder is opened.
    """
    for folder in ("base", "sft/checkpoint"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "config.json").write_text("{}")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "steer_sft.jsonl").touch()
    root = f"root={tmp_path}"
    starts = {
        "sft": lambda: sft.main(load_config(SftConfig, "configs/sft/miniature.yaml", [root])),
        "grpo": lambda: grpo.main(grpo.load_config("configs/grpo/miniature.yaml", [root])),
        "exports": lambda: exports.main(
            load_config(ExportConfig, "configs/exports/default.yaml", [root, f"output={tmp_path}/exports"])
        ),
        "world": lambda: miniature_seeds.main(load_config(SeedsConfig, "configs/miniature/seeds.yaml", [root])),
    }
    return {name: (tmp_path / name, start) for name, start in starts.items()}


@pytest.fixture
def gate() -> Gate:
    """A `Gate`, not served yet."""
    return Gate()


@pytest.fixture
def run_engine(tmp_path) -> Callable[[str], None]:
    """Runs Stage III's launcher, to three steps, on an engine that is nothing but this code."""

    def run(code: str) -> None:
        engine = tmp_path / "engine" / "safer_steer_verl"
        engine.mkdir(parents=True)
        (engine / "__init__.py").touch()
        (engine / "main.py").write_text(code)
        (tmp_path / "log").mkdir()
        path = os.pathsep.join([str(engine.parent), os.environ["PYTHONPATH"]])
        grpo.run_engine(tmp_path, os.environ | {"PYTHONPATH": path}, steps=3, done=0, stall_s=600.0)

    return run


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back-off of milliseconds."""
    monkeypatch.setattr(retry_module, "BASE_DELAY_S", 0.002)


@pytest.fixture
def file_limit() -> Callable[[int], object]:
    """A block in which no file of this process grows above so many bytes, which is how a full disk looks to it."""

    @contextmanager
    def limited(size: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited
