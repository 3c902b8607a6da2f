"""A teacher double at the network's edge (`TeacherDouble`), seeds and configs for it."""

import json
from pathlib import Path

import pytest
from PIL import Image

from data_construction.config import DataConfig
from http_doubles import ROLES, TeacherDouble


@pytest.fixture
def double(serve):
    return TeacherDouble(serve)


@pytest.fixture
def make_seeds(tmp_path):
    """Writes a seeds file with pictures of distinct colours; `questions` gives the seeds."""

    def make(name: str, questions: list[str], first: int = 0, **extra) -> Path:
        folder = tmp_path / "world" / name
        folder.mkdir(parents=True, exist_ok=True)
        rows = []
        for number, question in enumerate(questions, start=first):
            Image.new("RGB", (40, 40), (number * 7 % 256, number // 36, 90)).save(folder / f"{number}.png")
            seed = {"id": f"s{number}", "source": "made", "image": f"{number}.png", "question": question}
            rows.append(seed | extra)
        path = folder / "seeds.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return make


@pytest.fixture
def make_config(double, tmp_path):
    """A config whose every role is the double; `changes` replace top-level keys."""

    def make(sources: dict, **changes) -> DataConfig:
        data = {
            "root": str(tmp_path / "out"),
            "sources": sources,
            "turns": {kind: {"min": 2, "max": 4} for kind in ("benign", "obfuscated", "red_team")},
            "red_team": {"strategies_per_seed": 1, "min_rewrite_words": 1},
            "quality": {"near_duplicates": None},
            "roles": {role: {"model": role, "base_url": double.url, "max_retries": 0} for role in ROLES},
            "concurrency": 4,
            "max_transport_rate": 1.0,
        }
        return DataConfig.model_validate(data | changes)

    return make
