"""The chain of Table 2: data sets' files -> seeds -> single-turn benchmarks -> evaluation -> the table.

VLGuard and VLSBench are real rows, which are not part of this repository; the other three are written here in their
data sets' layout. Pictures are drawn.
"""

import json
import os
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from data_construction.config import DataConfig
from data_construction.pipeline import main as construct
from evaluation import run as entry
from evaluation.config import EvaluationConfig
from evaluation.multi_turn.judge import VERDICTS
from evaluation.single_turn.prepare import prepare
from safer_steer.config import load_config, load_raw, validate
from safer_steer.dialogue import Dialogue
from safer_steer.store import read_jsonl

SHARED = Path(os.environ.get("SAFER_STEER_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
YES = "answer-7431"


def draw(path: Path, number: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 40), (number * 7 % 256, number * 13 % 256, 90)).save(path)
    return path


@pytest.fixture
def data_sets(tmp_path):
    """The five data sets' files, with a train split next to each test split that has one."""
    folder = tmp_path / "data_sets"
    for name, file in (("vlguard", "test.json"), ("vlsbench", "data.json")):
        rows = json.loads((SHARED / name / file).read_text(encoding="utf-8"))
        for number, row in enumerate(rows):
            inside = f"test/{row['image']}" if name == "vlguard" else row["image_path"]
            draw(folder / name / inside, number)
        (folder / name / file).write_text(json.dumps(rows), encoding="utf-8")
    for name, splits in (("beavertails_v", ("train", "evaluation")), ("spa_vl", ("train", "test"))):
        for split in splits:
            rows = [{"id": i, "image": f"{split}{i}.png", "question": f"{split} question {i}"} for i in range(4)]
            rows[0]["question"] += " ?"
            for number, row in enumerate(rows):
                draw(folder / name / ("" if name == "beavertails_v" else "images") / row["image"], number)
            (folder / name / f"{split}.json").write_text(json.dumps(rows), encoding="utf-8")
    place = folder / "mm_safetybench" / "data" / "Scenario"
    picture = draw(place / "p.png", 1).read_bytes()
    for kind in ("SD", "SD_TYPO"):
        row = {"id": "1", "question": f"{kind} question ?", "image": {"bytes": picture, "path": None}}
        pd.DataFrame([row]).to_parquet(place / f"{kind}.parquet")
    return folder


def behave(body):
    """The model under test answers questions with a question mark well; the judge knows good answers by their word."""
    if body.get("response_format"):
        return json.dumps({"harmlessness": 3, "helpfulness": 3 if YES in json.dumps(body["messages"]) else 1})
    return YES if "?" in json.dumps(body["messages"]) else "no"


@pytest.mark.skipif(
    not (SHARED / "vlguard").is_dir(),
    reason=f"the real rows are not in {SHARED}; set SAFER_STEER_SHARED_DATA to their folder",
)
def test_from_the_files_to_the_table(data_sets, tmp_path, serve, capfd):
    root = tmp_path / "single_turn"
    raw = load_raw("configs/data_construction/single_turn.yaml", [f"root={root}"])
    for name, source in raw["sources"].items():
        assert "limit" not in source, "the sets are full"
        source["path"] = str(data_sets / name)
    train = {"reader": "spa_vl", "path": str(data_sets / "spa_vl"), "data_split": "train"}
    raw["sources"] |= {"train_side": train | {"split": "train"}, "wrong_side": train | {"split": "bench"}}
    construct(validate(DataConfig, raw, "test"))
    made = prepare([root / "data" / "seeds.jsonl"], root / "data" / "single_turn")
    assert made.rows == {"beavertails_v": 4, "mm_safetybench": 1, "spa_vl": 4, "vlguard": 24, "vlsbench": 12}
    assert sum(made.left_out.values()) == 8
    assert all(
        row.turns[0].user.startswith("test") for row in read_jsonl(root / "data/single_turn/spa_vl.jsonl", Dialogue)
    )
    with serve(behave) as server:
        keys = [f"root={root}", f"judge.base_url={server.url}", "judge.model=m"]
        config = load_config(EvaluationConfig, "configs/evaluation/single_turn.yaml", keys)
        model = config.models["base"].model_copy(update={"checkpoint": None, "endpoint": server.endpoint()})
        entry.main(config.model_copy(update={"models": {"base": model}}))
    assert "calls of judge: at most 45" in capfd.readouterr().out, "the plan comes before the calls"
    assert len(list(read_jsonl(root / "evaluation" / "base" / VERDICTS))) == 45
    tables = (root / "evaluation/report/tables.md").read_text(encoding="utf-8")
    table2 = tables[tables.index("## Table 2") : tables.index("## Table 3")].splitlines()
    ours = next(line for line in table2 if "ours: " in line)
    helpful = []
    for name in ("beavertails_v", "mm_safetybench", "spa_vl", "vlguard", "vlsbench"):
        rows = list(read_jsonl(root / f"data/single_turn/{name}.jsonl", Dialogue))
        helpful.append(100 * sum("?" in row.turns[0].user for row in rows) / len(rows))
    helpful.append(sum(helpful) / 5)
    assert [cell.strip() for cell in ours.split("|")[3:-1]] == [f"100.00 / {value:.2f}" for value in helpful]
